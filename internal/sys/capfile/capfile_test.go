package capfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriterKeepsBothEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const limit = 8 << 10
	w, err := Create(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		if n, err := fmt.Fprintf(w, "line %05d\n", i); n != 11 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if st, _ := os.Stat(path); st.Size() > limit {
			t.Fatalf("the file has %d bytes", st.Size())
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	if !strings.HasPrefix(s, "line 00000\nline 00001\n") || !strings.HasSuffix(s, "line 04998\nline 04999\n") {
		t.Errorf("an end is missing:\n%s", s)
	}
	if strings.Count(s, "bytes were cut here") != 1 {
		t.Errorf("the cut is not told once:\n%s", s)
	}
	if got := w.Tail(11); string(got) != "line 04999\n" {
		t.Errorf("Tail = %q", got)
	}
	if n, _ := w.Write(bytes.Repeat([]byte("x"), 3*limit)); n != 3*limit {
		t.Errorf("a write of %d took %d", 3*limit, n)
	}
	if st, _ := os.Stat(path); st.Size() > limit {
		t.Errorf("after a long write the file has %d bytes", st.Size())
	}
	_ = w.Close()
	if n, err := w.Write([]byte("late")); n != 4 || err != nil || w.Lost() != 4 {
		t.Errorf("a write after the end: %d, %v, lost %d", n, err, w.Lost())
	}
}

// TestLarge: what is moved in several pieces is whole.
func TestLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Create(path, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	for i := 0; whole.Len() < 30<<20; i++ {
		_, _ = fmt.Fprintf(&whole, "line %01000d\n", i)
	}
	for rest := whole.Bytes(); len(rest) > 0; rest = rest[min(len(rest), 100_000):] {
		_, _ = w.Write(rest[:min(len(rest), 100_000)])
	}
	b, err := os.ReadFile(path)
	head, tail, _ := bytes.Cut(b, []byte("\n[… "))
	_, tail, _ = bytes.Cut(tail, []byte(" …]\n"))
	if err != nil || len(b) > 16<<20 || len(tail) < 4<<20 || !bytes.HasPrefix(whole.Bytes(), head) || !bytes.HasSuffix(whole.Bytes(), tail) {
		t.Errorf("%d bytes, of them %d at the beginning and %d at the end, %v", len(b), len(head), len(tail), err)
	}
}

func TestCreateEmpties(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for range 2 {
		w, err := Create(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Tail(100); len(got) != 0 {
			t.Errorf("a new log holds %q", got)
		}
		_, _ = w.Write([]byte("former"))
		_ = w.Close()
	}
}
