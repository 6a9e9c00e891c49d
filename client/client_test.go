package client_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/client/clienttest"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, addresses ...string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Addresses: addresses, Patience: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		addresses []string
		insecure  bool
		base      string
		err       error
	}{
		{addresses: []string{"127.0.0.1:70"}, base: "http://127.0.0.1:70"},
		{addresses: []string{"localhost:70", "[::1]:71"}, base: "http://localhost:70"},
		{addresses: []string{"http://127.0.0.1:70/"}, base: "http://127.0.0.1:70"},
		{addresses: []string{"example.org:70"}, base: "https://example.org:70"},
		{addresses: []string{"https://example.org"}, base: "https://example.org:443"},
		{addresses: []string{"example.org:70"}, insecure: true, base: "http://example.org:70"},
		{addresses: []string{"http://example.org:70"}, err: client.ErrInsecure},
		{addresses: nil, err: client.ErrAddress},
		{addresses: []string{"127.0.0.1"}, err: client.ErrAddress},
		{addresses: []string{"ftp://127.0.0.1:3"}, err: client.ErrAddress},
		{addresses: []string{"127.0.0.1:70", "example.org:70"}, err: client.ErrAddress},
		{addresses: []string{"http://u@127.0.0.1:70"}, err: client.ErrAddress},
		{addresses: []string{"http://127.0.0.1:70/x"}, err: client.ErrAddress},
		{addresses: []string{":70"}, err: client.ErrAddress},
	} {
		c, err := client.New(client.Config{Addresses: tc.addresses, Insecure: tc.insecure})
		if !errors.Is(err, tc.err) {
			t.Errorf("%q: error %v, want %v", tc.addresses, err, tc.err)
			continue
		}
		if err == nil && c.BaseURL() != tc.base {
			t.Errorf("%q: base %s, want %s", tc.addresses, c.BaseURL(), tc.base)
		}
	}
}

func TestAnotherReplicaAnswers(t *testing.T) {
	s := clienttest.New(t)
	s.SetBrokers("nats://x")
	c := dial(t, clienttest.Unused(t), s.URL, clienttest.Unused(t))
	for range 2 {
		info, err := c.Info(t.Context())
		if err != nil || len(info.GetBrokerUrls()) != 1 {
			t.Fatalf("info %v, error %v", info, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	c, err := client.New(client.Config{Addresses: []string{clienttest.Unused(t)}, Patience: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(t.Context()); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("error %v, want unavailable", err)
	}
}

func TestToken(t *testing.T) {
	s := clienttest.New(t)
	s.Token = "secret"
	ref := s.Put([]byte("hello"), "data")
	for token, want := range map[string]bool{"": false, "wrong": false, "secret": true} {
		c, err := client.New(client.Config{Addresses: []string{s.URL}, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Info(t.Context())
		if (err == nil) != want {
			t.Errorf("token %q: info says %v", token, err)
		}
		_, err = c.Read(t.Context(), ref, 100)
		if (err == nil) != want {
			t.Errorf("token %q: read says %v", token, err)
		}
		if err != nil && connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("token %q: read says %v, want unauthenticated", token, err)
		}
	}
}

func TestTransferResumes(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 3 << 20} {
		s := clienttest.New(t)
		c := dial(t, s.URL)
		data := noise(size)
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		s.Cut(int64(size)/2 + 1)
		ref, err := c.UploadFile(t.Context(), path, "data")
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(s.File(ref.GetHash()), data) {
			t.Fatalf("%d bytes: the server has other bytes", size)
		}
		s.Cut(int64(size)/3 + 1)
		back := filepath.Join(t.TempDir(), "a", "back")
		if err := c.Download(t.Context(), ref, back); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		got, err := os.ReadFile(back)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: downloaded other bytes, error %v", size, err)
		}
	}
}

// TestUploadBeginsAgain: what the server has received of a file is not what was sent, as after a crash.
func TestUploadBeginsAgain(t *testing.T) {
	s := clienttest.New(t)
	data := noise(1000)
	ref := client.HashBytes(data, "data")
	s.PutPart(ref.GetHash(), make([]byte, 600))
	if err := dial(t, s.URL).Upload(t.Context(), ref, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.File(ref.GetHash()), data) {
		t.Error("the server has other bytes")
	}
}

func TestUploadSkipsWhatIsThere(t *testing.T) {
	s := clienttest.New(t)
	s.OnFiles = func(string) error { return connect.NewError(connect.CodeInternal, errors.New("must not be asked")) }
	data := noise(100)
	ref := s.Put(data, "esp")
	if err := dial(t, s.URL).Upload(t.Context(), ref, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func TestUploadOfOtherBytesIsRefused(t *testing.T) {
	s := clienttest.New(t)
	ref := client.HashBytes([]byte("right"), "data")
	err := dial(t, s.URL).Upload(t.Context(), ref, strings.NewReader("wrong"))
	if connect.CodeOf(err) != connect.CodeDataLoss {
		t.Fatalf("error %v, want data loss", err)
	}
	err = dial(t, s.URL).Upload(t.Context(), ref, strings.NewReader("sho"))
	if err == nil || s.File(ref.GetHash()) != nil {
		t.Fatalf("a short file was taken: %v", err)
	}
}

func TestDownloadGoesOnWithPart(t *testing.T) {
	s := clienttest.New(t)
	data := noise(100_000)
	ref := s.Put(data, "data")
	for name, part := range map[string][]byte{
		"right part": data[:60_000], "whole": data, "wrong part": noise(50_000), "too long": noise(200_000),
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path+".part", part, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := dial(t, s.URL).Download(t.Context(), ref, path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, data) {
			t.Fatalf("%s: other bytes", name)
		}
		if _, err := os.Stat(path + ".part"); !os.IsNotExist(err) {
			t.Fatalf("%s: the part is still there", name)
		}
	}
}

func TestWrongFileBehindHash(t *testing.T) {
	s := clienttest.New(t)
	ref := client.HashBytes([]byte("right"), "data")
	for name, bad := range map[string]string{"same size": "wrong", "shorter": "wr", "longer": "right and more"} {
		s.PutAs(ref.GetHash(), []byte(bad))
		path := filepath.Join(t.TempDir(), "f")
		err := dial(t, s.URL).Download(t.Context(), ref, path)
		if !errors.Is(err, client.ErrHash) {
			t.Errorf("%s: error %v, want ErrHash", name, err)
		}
		if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
		if _, err := dial(t, s.URL).Read(t.Context(), ref, 100); !errors.Is(err, client.ErrHash) {
			t.Errorf("%s: read says %v, want ErrHash", name, err)
		}
	}
	bad := &espalierv1.FileRef{Hash: "../../etc/passwd"}
	if err := dial(t, s.URL).Download(t.Context(), bad, t.TempDir()+"/x"); !errors.Is(err, client.ErrHash) {
		t.Errorf("path as hash: error %v, want ErrHash", err)
	}
}

func TestReadIsBounded(t *testing.T) {
	s := clienttest.New(t)
	ref := s.Put(noise(1000), "esp")
	if _, err := dial(t, s.URL).Read(t.Context(), ref, 999); err == nil {
		t.Fatal("1000 bytes fitted in 999")
	}
	got, err := dial(t, s.URL).Read(t.Context(), &espalierv1.FileRef{Hash: ref.GetHash()}, 1000)
	if err != nil || len(got) != 1000 {
		t.Fatalf("%d bytes, error %v", len(got), err)
	}
}

func TestSubmitRepeatsWithTheSameID(t *testing.T) {
	s := clienttest.New(t)
	var ids []string
	s.OnSubmit = func(req *espalierv1.SubmitRequest) (*espalierv1.SubmitResponse, error) {
		ids = append(ids, req.GetRequestId())
		if len(ids) < 3 {
			return nil, connect.NewError(connect.CodeUnavailable, errors.New("no leader"))
		}
		return &espalierv1.SubmitResponse{Job: &espalierv1.Job{Id: "j1"}}, nil
	}
	job, err := dial(t, s.URL).Submit(t.Context(), &espalierv1.JobSpec{Name: "x"}, nil)
	if err != nil || job.GetId() != "j1" {
		t.Fatalf("job %v, error %v", job, err)
	}
	if len(ids) != 3 || ids[0] != ids[1] || ids[1] != ids[2] || len(ids[0]) != 32 {
		t.Fatalf("request ids %v", ids)
	}
}

func status(done int32, state espalierv1.JobState) *espalierv1.WatchResponse {
	return &espalierv1.WatchResponse{Status: &espalierv1.JobStatus{Job: &espalierv1.Job{Completed: done, State: state}}}
}

func TestWatchReconnects(t *testing.T) {
	s := clienttest.New(t)
	opened := 0
	s.OnWatch = func(_ *espalierv1.WatchRequest, stream *connect.ServerStream[espalierv1.WatchResponse]) error {
		opened++
		switch opened {
		case 1:
			_ = stream.Send(status(1, espalierv1.JobState_JOB_STATE_SEARCHING))
			return connect.NewError(connect.CodeUnavailable, errors.New("going down"))
		case 2:
			return stream.Send(status(2, espalierv1.JobState_JOB_STATE_SEARCHING))
		default:
			_ = stream.Send(status(3, espalierv1.JobState_JOB_STATE_SEARCHING))
			return stream.Send(status(4, espalierv1.JobState_JOB_STATE_DONE))
		}
	}
	var seen []int32
	lost := 0
	last, err := dial(t, s.URL).Watch(t.Context(), "j", func(st *espalierv1.JobStatus) error {
		seen = append(seen, st.GetJob().GetCompleted())
		return nil
	}, func(error) { lost++ })
	if err != nil || last.GetJob().GetCompleted() != 4 || len(seen) != 4 || lost != 1 || opened != 3 {
		t.Fatalf("seen %v, lost %d, opened %d, error %v", seen, lost, opened, err)
	}
}

func TestWatchEnds(t *testing.T) {
	s := clienttest.New(t)
	s.OnWatch = func(req *espalierv1.WatchRequest, stream *connect.ServerStream[espalierv1.WatchResponse]) error {
		if req.GetJob() == "none" {
			return connect.NewError(connect.CodeNotFound, errors.New("no such job"))
		}
		_ = stream.Send(status(1, espalierv1.JobState_JOB_STATE_SEARCHING))
		<-t.Context().Done()
		return nil
	}
	c := dial(t, s.URL)
	if _, err := c.Watch(t.Context(), "none", nil, nil); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("error %v, want not found", err)
	}
	mine := errors.New("enough")
	//nolint:errorlint // the very error of the caller, not one around it
	if _, err := c.Watch(t.Context(), "j", func(*espalierv1.JobStatus) error { return mine }, nil); err != mine {
		t.Errorf("error %v, want the caller's", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Watch(ctx, "j", func(*espalierv1.JobStatus) error { cancel(); return nil }, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
}
