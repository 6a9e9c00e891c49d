package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/espalier-ml/espalier/job"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"percent": Percent,
	"latency": Latency,
	"size":    job.FormatSize,
	"ratio":   ratio,
	"float":   func(v int64) float64 { return float64(v) },
}).Parse(pageText))

// Summary is what a page says of the job besides its fronts.
type Summary struct {
	Name, Job, Version string
	Model, Data        string
	State, Reason      string
	Completed, Failed  int
	Elapsed            time.Duration
}

// WritePage writes one HTML file with everything in it: it opens without a network.
func WritePage(w io.Writer, s Summary, fronts []Front) error {
	type shown struct {
		Front
		Image template.HTML
	}
	var all []shown
	for _, f := range fronts {
		var svg bytes.Buffer
		if err := WriteImage(&svg, f, "svg"); err != nil {
			return err
		}
		// The declaration before <svg is not allowed inside a page.
		b := svg.Bytes()
		if i := bytes.Index(b, []byte("<svg")); i > 0 {
			b = b[i:]
		}
		all = append(all, shown{f, template.HTML(b)}) //nolint:gosec // drawn by us; texts in it are escaped
	}
	var out bytes.Buffer
	if err := page.Execute(&out, map[string]any{"Summary": s, "Fronts": all}); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	_, err := w.Write(out.Bytes())
	return err
}
