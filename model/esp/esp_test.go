package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

func write(t testing.TB, g *model.Graph) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// seal replaces the checksum by the right one, so that what lies behind it is tested.
func seal(b []byte) []byte {
	end := len(b) - checksumBytes
	return binary.LittleEndian.AppendUint32(b[:end:end], crc32.Checksum(b[:end], castagnoli))
}

// sparse zeroes each parameter with probability p.
func sparse(g *model.Graph, p float64, seed uint64) *model.Graph {
	r := rand.New(rand.NewPCG(seed, 1))
	g = g.Clone()
	for i := range g.Layers {
		for _, name := range g.Layers[i].ParamNames() {
			data := g.Layers[i].Params[name].Data
			for k := range data {
				if r.Float64() < p {
					data[k] = 0
				}
			}
		}
	}
	return g
}

func TestRoundTrip(t *testing.T) {
	used := map[byte]int{}
	for seed := range uint64(150) {
		g := sparse(modeltest.Graph(seed), float64(seed%10)/9, seed)
		g.Meta = map[string]string{model.MetaTrial: "17", model.MetaLineage: `{"strategy":"hybrid"}`}
		for _, l := range g.Layers {
			for _, x := range l.Params {
				used[measure(x.Data, isZero, 4).best().encoding]++
			}
		}
		b := write(t, g)
		got, err := Read(iotest.HalfReader(bytes.NewReader(b)), Limits{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(got, g) {
			t.Fatalf("seed %d: the graph differs", seed)
		}
		if n, err := Size(g); err != nil || n != int64(len(b)) {
			t.Fatalf("seed %d: size %d, error %v: want %d", seed, n, err, len(b))
		}
		if again := write(t, got); !bytes.Equal(again, b) {
			t.Fatalf("seed %d: written again, the bytes differ", seed)
		}
	}
	for e := range byte(3) {
		if used[e] == 0 {
			t.Errorf("no tensor used encoding %d", e)
		}
	}
}

func vector(values ...float32) *model.Graph {
	return &model.Graph{Input: model.Shape{1}, Layers: []model.Layer{{Name: "l", Op: model.Dense{Out: len(values)}, Inputs: []int{model.Input},
		Params: map[string]*model.Tensor{model.Weight: {Shape: model.Shape{1, len(values)}, Data: values}}}}}
}

// The bytes of each encoding, as docs/esp.md describes them.
func TestTensorBytes(t *testing.T) {
	one := []byte{0, 0, 0x80, 0x3f}
	many := make([]float32, 300)
	many[299] = 1
	for _, tt := range []struct {
		name   string
		values []float32
		want   []byte
	}{
		{"dense", []float32{1, 1}, append(append([]byte{0, 0}, one...), one...)},
		{"bitmap", []float32{0, 1, 0, 0, 0, 1, 0, 0, 1, 0}, append(append(append([]byte{0, 1, 0x22, 0x01}, one...), one...), one...)},
		{"all zero", []float32{0, 0, 0}, []byte{0, 1, 0}},
		{"index gaps", many, append([]byte{0, 2, 1, 0xab, 0x02}, one...)},
		{"minus zero is a value", []float32{float32(math.Copysign(0, -1))}, []byte{0, 0, 0, 0, 0, 0x80}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := appendTensor(nil, tt.values); !bytes.Equal(got, tt.want) {
				t.Errorf("got % x, want % x", got, tt.want)
			}
			got, err := Read(bytes.NewReader(write(t, vector(tt.values...))), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range got.Layers[0].Params[model.Weight].Data {
				if math.Float32bits(v) != math.Float32bits(tt.values[i]) {
					t.Errorf("value %d is %v, want %v", i, v, tt.values[i])
				}
			}
		})
	}
}

// A whole small file: what exists must stay readable.
func TestFileBytes(t *testing.T) {
	structure := `{"version":1,"input":[1],"layers":[{"name":"l","op":"dense","inputs":[-1],"attrs":{"out":1}}]}`
	want := append([]byte("\x89ESP\x01\x00"), byte(len(structure)), byte(len(structure)))
	want = append(append(want, structure...), 0, 0, 0, 0, 0x80, 0x3f)
	want = seal(append(want, 0, 0, 0, 0))
	plain, err := Read(bytes.NewReader(want), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain, vector(1)) {
		t.Errorf("got %+v", plain)
	}
	if b := write(t, vector(1)); len(b) > len(want) {
		t.Errorf("%d bytes with a deflated header, %d without", len(b), len(want))
	}
}

func TestSparsityShowsInBytes(t *testing.T) {
	g, err := zoo.Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(math.MaxInt64)
	for _, p := range []float64{0, 0.5, 0.9, 0.98} {
		n, err := Size(sparse(g, p, 1))
		if err != nil {
			t.Fatal(err)
		}
		// At most four bytes a value that is not zero, one bit a parameter, and a kilobyte.
		if bound := 122570*4*(1-p)*1.01 + 122570/8 + 1000; n >= last || float64(n) > bound {
			t.Errorf("at %v sparsity %d bytes, before it %d: want at most %.0f", p, n, last, bound)
		}
		last = n
	}
}

func TestAnyFlippedByteIsFound(t *testing.T) {
	b := write(t, sparse(modeltest.Graph(5), 0.7, 5))
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= byte(1 + i%255)
		if _, err := Read(bytes.NewReader(c), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d of %d changed: error %v", i, len(b), err)
		}
		if _, err := Read(bytes.NewReader(b[:i]), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at byte %d of %d: error %v", i, len(b), err)
		}
	}
}

// Behind a right checksum nothing else is believed either.
func TestReadErrors(t *testing.T) {
	header := func(kind byte, size, stored uint64, rest string) []byte {
		b := binary.AppendUvarint(append([]byte(Magic), version, kind), size)
		b = append(binary.AppendUvarint(b, stored), rest...)
		return seal(append(b, 0, 0, 0, 0))
	}
	structure := `{"version":1,"input":[3],"layers":[{"name":"l","op":"dense","inputs":[-1],"attrs":{"out":3}}]}`
	n := uint64(len(structure))
	tensor := func(b ...byte) []byte { return header(0, n, n, structure+string(b)) }
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, ErrCorrupt},
		{"another file", []byte("PK\x03\x04 and so on"), ErrCorrupt},
		{"another version", seal([]byte(Magic + "\x03....")), ErrVersion},
		{"unknown kind of header", header(7, n, n, structure), ErrVersion},
		{"absurd structure", header(0, 1<<40, 1<<40, ""), ErrTooLarge},
		{"structure past the end", header(0, n, n+1, structure), ErrCorrupt},
		{"structure of another size", header(0, n+1, n, structure), ErrCorrupt},
		{"not deflated", header(1, n, n, structure), ErrCorrupt},
		{"not a structure", header(0, 4, 4, "{xxx"), ErrCorrupt},
		{"no tensor", tensor(), ErrCorrupt},
		{"unknown type", tensor(9, 0), ErrVersion},
		{"unknown encoding", tensor(0, 3), ErrVersion},
		{"values cut", tensor(0, 0, 1, 2, 3), ErrCorrupt},
		{"bitmap cut", tensor(0, 1, 0), ErrCorrupt},
		{"bits past the end", tensor(0, 1, 0, 2), ErrCorrupt},
		{"bitmap's values cut", tensor(0, 1, 1, 0, 1, 2, 3), ErrCorrupt},
		{"more values than places", tensor(0, 2, 10), ErrCorrupt},
		{"index past the end", tensor(0, 2, 1, 9, 0, 0, 0, 0), ErrCorrupt},
		{"overflowing index", tensor(0, 2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0, 0), ErrCorrupt},
		{"indices cut", tensor(0, 2, 3), ErrCorrupt},
		{"data after", tensor(0, 1, 0, 0, 0), ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Read(bytes.NewReader(tt.in), Limits{}); !errors.Is(err, tt.want) {
				t.Errorf("error %v: want %v", err, tt.want)
			}
		})
	}
	good := write(t, vector(1, 2, 3))
	if _, err := Read(bytes.NewReader(good), Limits{Bytes: int64(len(good))}); err != nil {
		t.Errorf("exactly at the limit: %v", err)
	}
	if _, err := Read(bytes.NewReader(good), Limits{Bytes: int64(len(good)) - 1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit of bytes: %v", err)
	}
	if _, err := Read(bytes.NewReader(good), Limits{Params: 2}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit of parameters: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Read(iotest.ErrReader(broken), Limits{}); !errors.Is(err, broken) {
		t.Errorf("a failing reader: %v", err)
	}
}

type full struct{ left int }

func (f *full) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

var errFull = errors.New("no space")

func TestWriteErrors(t *testing.T) {
	g := vector(1, 2, 3)
	n := len(write(t, g))
	for _, left := range []int{0, n - 5, n - 1} {
		if err := Write(&full{left}, g); !errors.Is(err, errFull) {
			t.Errorf("room for %d of %d bytes: error %v", left, n, err)
		}
	}
	delete(g.Layers[0].Params, model.Weight)
	if err := Write(&full{n}, g); !errors.Is(err, model.ErrGraph) {
		t.Errorf("an invalid graph: error %v", err)
	}
	if _, err := Size(g); !errors.Is(err, model.ErrGraph) {
		t.Errorf("size of an invalid graph: error %v", err)
	}
}

// A tensor of zeros may be large in memory and small in the file: the limit holds.
func TestZerosAreLimited(t *testing.T) {
	b := write(t, vector(make([]float32, 1<<16)...))
	if len(b) > 1000 {
		t.Errorf("%d bytes for zeros", len(b))
	}
	if _, err := Read(bytes.NewReader(b), Limits{Params: 1<<16 - 1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for seed := range uint64(10) {
		g := sparse(modeltest.Graph(seed), float64(seed)/10, seed)
		f.Add(write(f, g))
		f.Add(write(f, quantized(f, g)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= checksumBytes {
			b = seal(b)
		}
		g, err := Read(bytes.NewReader(b), Limits{Params: 1 << 16})
		if err != nil {
			return
		}
		out := write(t, g)
		if n, err := Size(g); err != nil || n != int64(len(out)) {
			t.Fatalf("size %d, error %v: want %d", n, err, len(out))
		}
		if _, err := Read(bytes.NewReader(out), Limits{}); err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
	})
}
