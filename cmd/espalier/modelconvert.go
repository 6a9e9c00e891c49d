package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/onnx"
)

func newConvert() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "convert FILE -o OUT",
		Short: "Write a model file in the other format: esp or onnx",
		Long: `Writes a model file in the format that OUT's ending says: .esp or .onnx. Numbers stay as they
are, sparse or int8 too: an int8 file becomes int8, in ONNX in QDQ form. Nothing is folded or left out.`,
		Example: "  espalier model convert model.onnx -o model.esp",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(out, args[0]); err != nil {
				return err
			}
			g, format, size, err := readModel(args[0])
			if err != nil {
				return err
			}
			written, err := writeModel(out, g)
			if err != nil {
				return err
			}
			facts := convertFacts{convertedFile{args[0], format, size}, convertedFile{out, formatOf(out), written}, g.Quant != nil}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s, from %s of %s\n", out, formatText(facts.To.Format, facts.Int8),
				job.FormatSize(written), formatText(format, facts.Int8), job.FormatSize(size))
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the file to write, .esp or .onnx")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// convertFacts are a file and what it was written as, as JSON.
type convertFacts struct {
	From convertedFile `json:"from"`
	To   convertedFile `json:"to"`
	Int8 bool          `json:"int8"`
}

type convertedFile struct {
	File      string `json:"file"`
	Format    string `json:"format"`
	SizeBytes int64  `json:"size_bytes"`
}

func formatText(format string, int8 bool) string {
	if int8 {
		return format + " int8"
	}
	return format
}

// formatOf is the format that a file's ending says; "" if none.
func formatOf(path string) string {
	switch filepath.Ext(path) {
	case ".esp":
		return "esp"
	case ".onnx":
		return "onnx"
	}
	return ""
}

// checkOutput checks where a model made of another is to be written.
func checkOutput(path, from string) error {
	if path == "" {
		return usagef("--output is missing: want a file to write, .esp or .onnx")
	}
	if formatOf(path) == "" {
		return usagef("--output %q: want a name that ends in .esp or .onnx", path)
	}
	a, err := os.Stat(path)
	if err != nil {
		return nil //nolint:nilerr // it is not there yet, or writing will say why not
	}
	if b, err := os.Stat(from); err == nil && os.SameFile(a, b) {
		return usagef("--output %q: want another file than the one that is read", path)
	}
	return nil
}

// writeModel writes a model in the format that the file's ending says, whole or not at
// all, and tells its size.
func writeModel(path string, g *model.Graph) (int64, error) {
	var b bytes.Buffer
	var err error
	if formatOf(path) == "onnx" {
		err = onnx.Write(&b, g, onnx.Options{ProducerVersion: version})
	} else {
		err = esp.Write(&b, g)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	return int64(b.Len()), local.WriteFile(path, b.Bytes())
}
