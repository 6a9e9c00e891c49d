package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func write(t testing.TB, f *File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func example() *File {
	return &File{
		Meta: map[string]string{"format": "pt", "é": "\"<"},
		Tensors: map[string]*model.Tensor{
			"b": {Shape: model.Shape{2, 1}, Data: []float32{1, float32(math.Inf(-1))}},
			"a": {Shape: model.Shape{}, Data: []float32{-0.5}},
		},
	}
}

// The bytes were worked out from the format's description.
func TestWriteBytes(t *testing.T) {
	f := &File{Meta: map[string]string{"k": "v"}, Tensors: map[string]*model.Tensor{"w": {Shape: model.Shape{1, 2}, Data: []float32{1, -2}}}}
	header := `{"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}`
	for len(header)%8 != 0 {
		header += " "
	}
	want := file(header, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0)
	if got := write(t, f); !bytes.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	f := example()
	b := write(t, f)
	got, err := Read(iotest.OneByteReader(bytes.NewReader(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, f) {
		t.Errorf("got %+v, want %+v", got, f)
	}
	if again := write(t, got); !bytes.Equal(again, b) {
		t.Error("written again, the bytes differ")
	}
	empty, err := Read(bytes.NewReader(write(t, &File{})), Limits{})
	if err != nil || len(empty.Tensors) != 0 {
		t.Errorf("no tensors: %+v, error %v", empty, err)
	}
}

// Files by others: tensors in any order, white space, half precision.
func TestReadOthers(t *testing.T) {
	b := file("{ \"h\":{\"shape\":[6],\"dtype\":\"F16\",\"data_offsets\":[4,16]},\n\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}  ",
		0x80, 0x3f, 0x00, 0xc0, // bfloat16 1, -2
		0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b, 0x01, 0x00, 0x00, 0x7c, 0x00, 0x80) // binary16 1, -2, 65504, 2^-24, inf, -0
	f, err := Read(bytes.NewReader(b), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Tensors["b"].Data, []float32{1, -2}; !reflect.DeepEqual(got, want) {
		t.Errorf("bfloat16: got %v, want %v", got, want)
	}
	got, want := f.Tensors["h"].Data, []float32{1, -2, 65504, 1.0 / (1 << 24), float32(math.Inf(1)), float32(math.Copysign(0, -1))}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("binary16: value %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestReadErrors(t *testing.T) {
	one := func(entry string) []byte { return file(`{"w":`+entry+`}`, 1, 2, 3, 4) }
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, ErrCorrupt},
		{"cut length", []byte{1, 2}, ErrCorrupt},
		{"cut header", file(`{}`)[:9], ErrCorrupt},
		{"absurd header", []byte{0, 0, 0, 0, 0, 0, 0, 0x80}, ErrTooLarge},
		{"header is a list", file(`[]`), ErrCorrupt},
		{"header is cut JSON", file(`{"w":`), ErrCorrupt},
		{"header has two objects", file(`{}{}`), ErrCorrupt},
		{"metadata not strings", file(`{"__metadata__":{"a":1}}`), ErrCorrupt},
		{"a name twice", file(`{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 1, 2, 3, 4), ErrCorrupt},
		{"unknown field", one(`{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}`), ErrCorrupt},
		{"unknown type", one(`{"dtype":"I64","shape":[1],"data_offsets":[0,8]}`), ErrType},
		{"no type", one(`{"shape":[1],"data_offsets":[0,4]}`), ErrType},
		{"negative dimension", one(`{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}`), model.ErrShape},
		{"dimension 0", one(`{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`), model.ErrShape},
		{"overflowing shape", one(`{"dtype":"F32","shape":[65536,65536,65536,65536],"data_offsets":[0,4]}`), model.ErrShape},
		{"a hole", file(`{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 1, 2, 3, 4, 5, 6, 7, 8), ErrCorrupt},
		{"an overlap", file(`{"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 1, 2, 3, 4, 5, 6), ErrCorrupt},
		{"size against shape", one(`{"dtype":"F32","shape":[2],"data_offsets":[0,4]}`), ErrCorrupt},
		{"negative offset", one(`{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}`), ErrCorrupt},
		{"cut data", file(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 1, 2, 3, 4), ErrCorrupt},
		{"data after", append(one(`{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`), 0), ErrCorrupt},
		{"over the limit", file(`{"w":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}`, make([]byte, 4000)...), ErrTooLarge},
		{"too many", file(`{"u":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"v":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"w":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, make([]byte, 12)...), ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Read(bytes.NewReader(tt.in), Limits{DataBytes: 1000, Tensors: 2}); !errors.Is(err, tt.want) {
				t.Errorf("error %v: want %v", err, tt.want)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := Read(iotest.ErrReader(broken), Limits{}); !errors.Is(err, broken) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a failing reader: error %v", err)
	}
}

func TestFalseSizeCostsNoMemory(t *testing.T) {
	b := file(`{"w":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}`, 1, 2, 3, 4)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Read(bytes.NewReader(b), Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes were allocated for a file of %d", n, len(b))
	}
}

func TestWriteErrors(t *testing.T) {
	one := model.NewTensor(1)
	for name, f := range map[string]*File{
		"metadata as a name": {Tensors: map[string]*model.Tensor{"__metadata__": one}},
		"no name":            {Tensors: map[string]*model.Tensor{"": one}},
		"no tensor":          {Tensors: map[string]*model.Tensor{"a": nil}},
		"name not UTF-8":     {Tensors: map[string]*model.Tensor{"\xff": one}},
		"metadata not UTF-8": {Meta: map[string]string{"a": "\xff"}},
	} {
		if err := Write(&bytes.Buffer{}, f); !errors.Is(err, ErrName) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	short := &File{Tensors: map[string]*model.Tensor{"w": {Shape: model.Shape{2}, Data: []float32{1}}}}
	if err := Write(&bytes.Buffer{}, short); !errors.Is(err, model.ErrShape) {
		t.Errorf("too few values: error %v", err)
	}
}

func TestCheckpoint(t *testing.T) {
	for seed := range uint64(50) {
		g := modeltest.Graph(seed)
		g.Meta = map[string]string{model.MetaTrial: "7"}
		extra := map[string]*model.Tensor{"mask.conv": {Shape: model.Shape{3}, Data: []float32{0, 1, 1}}}
		meta := map[string]string{"epoch": "3"}
		var b bytes.Buffer
		if err := WriteGraph(&b, g, extra, meta); err != nil {
			t.Fatal(err)
		}
		c, err := ReadGraph(&b, Limits{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(c, &Checkpoint{Graph: g, Extra: extra, Meta: meta}) {
			t.Fatalf("seed %d: the checkpoint differs", seed)
		}
	}
}

func TestCheckpointErrors(t *testing.T) {
	g := modeltest.Graph(3)
	if err := WriteGraph(&bytes.Buffer{}, g, nil, map[string]string{structureKey: "x"}); !errors.Is(err, ErrName) {
		t.Errorf("a reserved key: error %v", err)
	}
	var good bytes.Buffer
	if err := WriteGraph(&good, g, nil, nil); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*File){
		"no structure":     func(f *File) { delete(f.Meta, structureKey) },
		"broken structure": func(f *File) { f.Meta[structureKey] = strings.Replace(f.Meta[structureKey], `"op"`, `"oq"`, 1) },
		"missing tensor": func(f *File) {
			for name := range f.Tensors {
				delete(f.Tensors, name)
				return
			}
		},
		"a stranger": func(f *File) { f.Tensors["model.nobody.weight"] = model.NewTensor(1) },
	} {
		f, err := Read(bytes.NewReader(good.Bytes()), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		change(f)
		if _, err := ReadGraph(bytes.NewReader(write(t, f)), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	f, err := Read(bytes.NewReader(good.Bytes()), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range f.Tensors {
		f.Tensors[name] = model.NewTensor(append([]int{1}, w.Shape...)...)
	}
	if _, err := ReadGraph(bytes.NewReader(write(t, f)), Limits{}); !errors.Is(err, model.ErrShape) {
		t.Errorf("other shapes: error %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, example()))
	for seed := range uint64(5) {
		var b bytes.Buffer
		if err := WriteGraph(&b, modeltest.Graph(seed), nil, map[string]string{"a": "b"}); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ReadGraph(bytes.NewReader(b), Limits{}); err == nil {
			if err := WriteGraph(&bytes.Buffer{}, c.Graph, c.Extra, nil); err != nil {
				t.Fatalf("cannot write what was read: %v", err)
			}
		}
		file, err := Read(bytes.NewReader(b), Limits{})
		if err != nil {
			return
		}
		for name := range file.Tensors {
			if name == "" {
				return // others may write it; we do not
			}
		}
		var out bytes.Buffer
		if err := Write(&out, file); err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		if again, err := Read(&out, Limits{}); err != nil || len(again.Tensors) != len(file.Tensors) {
			t.Fatalf("cannot read what was written: %v", err)
		}
	})
}
