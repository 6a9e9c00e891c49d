package job

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// reader walks a YAML tree and collects every error, so that a user sees all of
// them at once. Each names the field, its line, its value and what is right.
type reader struct{ errs []*FieldError }

func (r *reader) fail(f field, want string, args ...any) {
	r.errs = append(r.errs, &FieldError{Field: f.path, Line: f.line(), Want: fmt.Sprintf(want, args...)})
}

// joined returns the errors in the order of the file.
func (r *reader) joined() error {
	slices.SortStableFunc(r.errs, func(a, b *FieldError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field))
	})
	all := make([]error, len(r.errs))
	for i, e := range r.errs {
		all[i] = e
	}
	return errors.Join(all...)
}

// field is a value of the file with its path.
type field struct {
	path string
	node ast.Node
}

func (f field) set() bool { return f.node != nil }

func (f field) line() int {
	if f.node == nil || f.node.GetToken() == nil || f.node.GetToken().Position == nil {
		return 0
	}
	return f.node.GetToken().Position.Line
}

// text shows a value in an error, shortened.
func (f field) text() string {
	s := "nothing"
	if f.node != nil {
		s = strings.Join(strings.Fields(f.node.String()), " ")
	}
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return s
}

// parse returns the root mapping of a job file.
func (r *reader) parse(b []byte) (field, error) {
	if len(b) > MaxFileBytes {
		return field{}, fmt.Errorf("%w: %d bytes: want at most %d", ErrSyntax, len(b), MaxFileBytes)
	}
	if err := checkDepth(b); err != nil {
		return field{}, err
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return field{}, fmt.Errorf("%w: %s", ErrSyntax, strings.TrimSpace(err.Error()))
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			return field{}, fmt.Errorf("%w: more than one document: want one job a file", ErrSyntax)
		}
		body = d.Body
	}
	if body == nil {
		return field{}, fmt.Errorf("%w: the file is empty: want a job, such as `model: {zoo: lenet-5}`", ErrSyntax)
	}
	return field{path: "job", node: body}, nil
}

// maxDepth bounds nesting; the deepest field of a job file is at 4.
const maxDepth = 16

// checkDepth refuses nesting that no job file has before the parser, which
// recurses, sees it.
func checkDepth(b []byte) error {
	depth := 0
	for _, line := range strings.Split(string(b), "\n") {
		if indent := len(line) - len(strings.TrimLeft(line, " -?:")); indent > 8*maxDepth {
			return fmt.Errorf("%w: indented by %d: want at most %d", ErrSyntax, indent, 8*maxDepth)
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
			if depth > maxDepth {
				return fmt.Errorf("%w: nested deeper than %d", ErrSyntax, maxDepth)
			}
		}
	}
	return nil
}

// object reads a mapping whose keys must be among the known ones.
func (r *reader) object(f field, known ...string) map[string]field {
	m := r.mapping(f, "want fields: "+strings.Join(known, ", "))
	for k, v := range m {
		if !slices.Contains(known, k) {
			hint := "want one of: " + strings.Join(known, ", ")
			if near := nearest(k, known); near != "" {
				hint = fmt.Sprintf("did you mean %q? fields here: %s", near, strings.Join(known, ", "))
			}
			r.fail(v, "unknown field: %s", hint)
			delete(m, k)
		}
	}
	return m
}

// mapping reads a mapping with any keys. A root of path "job" adds no prefix.
func (r *reader) mapping(f field, want string) map[string]field {
	var values []*ast.MappingValueNode
	switch n := f.node.(type) {
	case nil:
		return map[string]field{}
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		r.fail(f, "%s: %s", f.text(), want)
		return map[string]field{}
	}
	m := make(map[string]field, len(values))
	for _, v := range values {
		key, ok := keyText(v.Key)
		path := key
		if f.path != "job" {
			path = f.path + "." + key
		}
		item := field{path: path, node: v.Value}
		switch {
		case !ok:
			r.fail(item, "key %s: want a plain word", strings.TrimSpace(v.Key.String()))
		case m[key].node != nil:
			r.fail(item, "given twice, first on line %d", m[key].line())
		case isNull(v.Value):
			r.fail(field{path: path, node: v.Key}, "no value: give one or leave the field out")
		default:
			m[key] = item
		}
	}
	return m
}

func keyText(k ast.MapKeyNode) (string, bool) {
	switch n := k.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func isNull(n ast.Node) bool {
	if n == nil {
		return true
	}
	_, ok := n.(*ast.NullNode)
	return ok
}

// word reads a string. Numbers and booleans are not strings: quote them.
func (r *reader) word(f field, want string) string {
	if n, ok := f.node.(*ast.StringNode); ok {
		return n.Value
	}
	r.fail(f, "%s: want %s", f.text(), want)
	return ""
}

// name reads one of the allowed words.
func (r *reader) name(f field, allowed []string) string {
	s := r.word(f, "one of: "+strings.Join(allowed, ", "))
	if s != "" && !slices.Contains(allowed, s) {
		hint := "want one of: " + strings.Join(allowed, ", ")
		if near := nearest(s, allowed); near != "" {
			hint = fmt.Sprintf("did you mean %q? %s", near, hint)
		}
		r.fail(f, "%q: %s", s, hint)
	}
	return s
}

// list reads a list; a single value counts as a list of one.
func (r *reader) list(f field) []field {
	n, ok := f.node.(*ast.SequenceNode)
	if !ok {
		return []field{f}
	}
	if len(n.Values) == 0 {
		r.fail(f, "an empty list: want at least one value")
	}
	out := make([]field, 0, len(n.Values))
	for i, v := range n.Values {
		item := field{path: fmt.Sprintf("%s[%d]", f.path, i), node: v}
		if isNull(v) {
			r.fail(f, "item %d has no value", i)
			continue
		}
		out = append(out, item)
	}
	return out
}

// names reads a list of distinct allowed words.
func (r *reader) names(f field, allowed []string) []string {
	var out []string
	for _, item := range r.list(f) {
		s := r.name(item, allowed)
		if slices.Contains(out, s) {
			r.fail(item, "%q is listed twice", s)
			continue
		}
		out = append(out, s)
	}
	return out
}

// number reads a finite number. YAML 1.2 leaves `1e-4` a string; people do not.
func (r *reader) number(f field, want string) (float64, bool) {
	v, ok := 0.0, false
	switch n := f.node.(type) {
	case *ast.IntegerNode:
		v, ok = parseFloat(n.GetToken().Value)
	case *ast.FloatNode:
		v, ok = n.Value, true
	case *ast.StringNode:
		if n.GetToken().Value == strings.TrimSpace(n.GetToken().Origin) {
			v, ok = parseFloat(n.Value)
		}
	}
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		r.fail(f, "%s: want %s", f.text(), want)
		return 0, false
	}
	return v, true
}

func parseFloat(s string) (float64, bool) {
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return v, err == nil
}

// integer reads a whole number in [1, high].
func (r *reader) integer(f field, high int64) int64 {
	want := fmt.Sprintf("a whole number from 1 to %d", high)
	v, ok := r.number(f, want)
	if ok && (v != math.Trunc(v) || v < 1 || v > float64(high)) {
		r.fail(f, "%s: want %s", f.text(), want)
		return 0
	}
	return int64(v)
}

// boolean reads true or false.
func (r *reader) boolean(f field) bool {
	if n, ok := f.node.(*ast.BoolNode); ok {
		return n.Value
	}
	r.fail(f, "%s: want true or false", f.text())
	return false
}

// duration reads a time with its unit.
func (r *reader) duration(f field) time.Duration {
	const want = "a time above 0 with its unit, such as 5ms, 90s or 2h"
	s := r.word(f, want)
	if s == "" {
		return 0
	}
	d, err := ParseDuration(s)
	if err != nil {
		r.fail(f, "%q: want %s", s, want)
	}
	return d
}

// size reads a number of bytes with its unit.
func (r *reader) size(f field) int64 {
	const want = "a size above 0 with its unit, such as 200KB, 1.5MB or 2GB (KB = 1000 bytes)"
	text := ""
	switch n := f.node.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.IntegerNode:
		text = n.GetToken().Value
	}
	v, err := ParseSize(text)
	if err != nil {
		r.fail(f, "%s: want %s", f.text(), want)
	}
	return v
}

// nearest is the allowed word within two edits of s, or "".
func nearest(s string, allowed []string) string {
	best, at := 3, ""
	for _, a := range allowed {
		if d := distance(s, a); d < best {
			best, at = d, a
		}
	}
	return at
}

// distance is the Levenshtein distance, computed row by row.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
