package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smolvm/smolvm/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func names(t *testing.T, r *Reader) []string {
	t.Helper()
	var out []string
	if err := r.Each(func(rec api.NetRecord) error {
		name := rec.Name
		if rec.Kind == KindDropped {
			name = fmt.Sprintf("dropped %d", rec.Count)
		}
		out = append(out, name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func all(t *testing.T, dir string) []string {
	t.Helper()
	r := NewReader(dir)
	defer func() { _ = r.Close() }()
	return names(t, r)
}

func rec(name string) api.NetRecord { return api.NetRecord{Kind: "dns", Name: name, Verdict: "allow"} }

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		w, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		w.Add(rec(name))
		_ = w.Close()
		w.Add(rec("late")) // has nowhere to go
		if w.Dropped() != 1 {
			t.Errorf("%d dropped", w.Dropped())
		}
		// The next one finds what a kill left in the middle of a line.
		f, _ := os.OpenFile(filepath.Join(dir, File), os.O_WRONLY|os.O_APPEND, 0)
		_, _ = f.WriteString(`{"kind":"dns","name":"half`)
		_ = f.Close()
	}
	if got := all(t, dir); fmt.Sprint(got) != "[a b]" {
		t.Errorf("%v", got)
	}
	if st, err := os.Stat(filepath.Join(dir, File)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestRotates(t *testing.T) {
	dir := t.TempDir()
	const limit = 8 << 10
	w, err := open(dir, limit, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(dir)
	defer func() { _ = r.Close() }()
	var followed []string
	for i := range 1000 {
		w.Add(rec(fmt.Sprintf("n%d", i)))
		if i%20 == 0 {
			time.Sleep(time.Millisecond)
			followed = append(followed, names(t, r)...)
		}
	}
	_ = w.Close()
	followed = append(followed, names(t, r)...)
	for _, name := range []string{File, Former} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() > max(limit, maxBatch) {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	got := all(t, dir)
	if last := got[len(got)-1]; last != "n999" || len(got) < 10 {
		t.Errorf("%d records to %s", len(got), last)
	}
	// Who follows sees each once, in order; only a file that came and went between two looks may be missing.
	seen := map[string]bool{}
	for _, name := range followed {
		if seen[name] {
			t.Fatalf("%s came twice", name)
		}
		seen[name] = true
	}
	if !seen["n0"] || !seen["n999"] {
		t.Errorf("%d of 1000 followed", len(followed))
	}
}

// TestBetweenTwoFiles: what is read while there is only a former file is not read again.
func TestBetweenTwoFiles(t *testing.T) {
	dir := t.TempDir()
	put := func(name, record string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"kind":"dns","name":"`+record+`"}`+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(Former, "a")
	r := NewReader(dir)
	defer func() { _ = r.Close() }()
	if got := fmt.Sprint(names(t, r), names(t, r)); got != "[a] []" {
		t.Error(got)
	}
	put(File, "b")
	if got := fmt.Sprint(names(t, r), names(t, r), all(t, dir)); got != "[b] [] [a b]" {
		t.Error(got)
	}
}

func TestTooFastIsCounted(t *testing.T) {
	dir := t.TempDir()
	w, err := open(dir, 1<<30, 4)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				w.Add(rec("x"))
			}
		})
	}
	wg.Wait()
	_ = w.Close()
	kept, told := int64(0), int64(0)
	r := NewReader(dir)
	defer func() { _ = r.Close() }()
	_ = r.Each(func(rec api.NetRecord) error {
		if rec.Kind == KindDropped {
			told += rec.Count
		} else {
			kept++
		}
		return nil
	})
	if told != w.Dropped() || kept+told != 16_000 || told == 0 {
		t.Errorf("%d kept, %d dropped, %d told", kept, w.Dropped(), told)
	}
}

// TestFullDisk: /dev/full stands for one. What is dropped is told when there is room again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	w, err := open(dir, 1<<20, 16)
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	real := w.f // the goroutine waits for the queue
	w.f = full
	w.write(appendRecord(nil, rec("lost")), 1)
	if w.Dropped() != 1 {
		t.Errorf("%d dropped", w.Dropped())
	}
	_ = full.Close()
	w.f = real
	w.Add(rec("kept"))
	w.Drop(4)
	_ = w.Close()
	if got := strings.Join(all(t, dir), " "); !strings.HasPrefix(got, "kept") || !strings.Contains(got, "dropped") || w.Dropped() != 5 {
		t.Errorf("%s, %d dropped", got, w.Dropped())
	}
}

func TestHostileTexts(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.Add(api.NetRecord{Kind: "dns", Name: strings.Repeat("\n\x1b\xff\"", 1000), Time: time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC)})
	w.Add(rec("b"))
	odd := strings.Repeat("\x1b", 5000) // the most that a request's record can be still is read
	w.Add(api.NetRecord{Kind: "http", Name: odd, Addr: odd, Proto: odd, Verdict: odd, Rule: odd, Reason: odd, Method: odd, Path: odd, HTTPVersion: odd, QType: odd, Secrets: slices.Repeat([]string{odd}, 500)})
	_ = w.Close()
	if got := all(t, dir); len(got) != 3 {
		t.Errorf("%d records", len(got))
	}
	b, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil || bytes.Count(b, []byte{'\n'}) != 3 || bytes.ContainsAny(b, "\x1b\xff") || len(b) > maxLine {
		t.Errorf("%d bytes, %v: %q", len(b), err, b)
	}
	if got := all(t, dir); len(got) != 3 || got[1] != "b" {
		t.Errorf("%q", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, File)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a link was followed")
	}
	if _, err := Open(filepath.Join(dir, "absent")); err == nil {
		t.Error("a directory was made")
	}
	if got := all(t, filepath.Join(dir, "absent")); got != nil {
		t.Errorf("%v", got)
	}
}

func TestStats(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, r := range []api.NetRecord{
		{Kind: "dns", Name: "a.example", Verdict: "allow"},
		{Kind: "dns", Name: "b.example", Verdict: "deny"},
		{Kind: "tcp", Name: "a.example", Addr: "1.2.3.4", Verdict: "allow", BytesIn: 100, BytesOut: 10},
		{Kind: "udp", Addr: "10.0.0.1", Verdict: "deny"},
		{Kind: "frame", Verdict: "deny", Count: 3},
		{Kind: "http", Name: "a.example", Verdict: "allow", Method: "GET", Path: "/x", Status: 200, BytesIn: 90, BytesOut: 1},
		{Kind: "http", Name: "a.example", Verdict: "deny", Method: "POST", Path: "/x", Status: 403},
		{Kind: KindDropped, Count: 7},
	} {
		r.Time = at
		w.Add(r)
	}
	_ = w.Close()
	got, err := Stats(dir)
	want := "{2026-01-02 03:04:05 +0000 UTC 7 7 1 1 1 1 3 2 1 100 10 [{a.example 2 0 100 10 2 1} {10.0.0.1 0 1 0 0 0 0} {b.example 0 1 0 0 0 0}] 0}"
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v (%v), want %s", got, err, want)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("{\"kind\":\"dns\"}\n{\"kind\""))
	f.Add([]byte("\n\n\x00\n[]\nnull\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := all(t, dir); len(got) > bytes.Count(b, []byte{'\n'}) {
			t.Errorf("%q gives %d records", b, len(got))
		}
		w, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		w.Add(rec("last"))
		_ = w.Close()
		if got := all(t, dir); len(got) == 0 || got[len(got)-1] != "last" {
			t.Errorf("%q and one more: %q", b, got)
		}
	})
}
