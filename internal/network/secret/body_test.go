package secret

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// pieces gives a text in pieces whose lengths repeat.
type pieces struct {
	text   string
	sizes  []int
	n      int
	closed bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	size := min(len(p.text), len(b), max(1, p.sizes[p.n%len(p.sizes)]))
	p.n++
	n := copy(b, p.text[:size])
	p.text = p.text[n:]
	return n, nil
}

func (p *pieces) Close() error { p.closed = true; return nil }

func TestBody(t *testing.T) {
	s := newSet(t, github(), mail())
	long := strings.Repeat("x", 100_000)
	for _, size := range []int{1, 2, 7, len(githubPlace) - 1, len(githubPlace), 4096} {
		for _, text := range []string{"", "a", long, githubPlace[:20] + "-" + githubPlace[20:], githubPlace[1:]} {
			got, err := io.ReadAll(s.Body("api.github.com", &pieces{text: text, sizes: []int{size}}))
			if err != nil || string(got) != text {
				t.Errorf("pieces of %d: %d bytes, %v", size, len(got), err)
			}
		}
		for _, text := range []string{githubPlace, long + githubPlace, "a" + mailPlace + long, githubPlace[:5] + githubPlace} {
			r := s.Body("evil.org", &pieces{text: text, sizes: []int{size, 3}})
			got, err := io.ReadAll(r)
			var m *Misuse
			if !errors.As(err, &m) || strings.Contains(string(got), githubPlace) || strings.Contains(string(got), mailPlace) {
				t.Errorf("pieces of %d: %d bytes, %v", size, len(got), err)
			}
			if n, err := r.Read(make([]byte, 8)); n != 0 || !errors.As(err, &m) {
				t.Errorf("it goes on: %d, %v", n, err)
			}
		}
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(s.Body("a", io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := s.Body("a", nil); got != nil {
		t.Error("a body is made")
	}
}

// redact reads a response; strict holds back whatever may be a value's beginning.
func redact(t testing.TB, s *Set, strict bool, host, text string, size int) string {
	t.Helper()
	src := &pieces{text: text, sizes: []int{size}}
	r := s.ResponseBody(host, src)
	if red, ok := r.(*redactor); ok && strict {
		red.harmless = 0
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil || !src.closed {
		t.Error("it is not closed")
	}
	return string(got)
}

func TestResponseBody(t *testing.T) {
	s := newSet(t, github(), mail())
	long := strings.Repeat("y", 70_000)
	for _, tt := range []struct{ host, text, want string }{
		{"mail.example.com", "", ""},
		{"mail.example.com", long, long},
		{"mail.example.com", githubValue, githubPlace},
		{"mail.example.com", long + githubValue + "|" + mailValue + long + mailValue, long + githubPlace + "|" + mailPlace + long + mailPlace},
		{"mail.example.com", githubValue[:9] + githubValue + githubValue[:9], githubValue[:9] + githubPlace + githubValue[:9]},
		{"api.github.com", githubValue + mailValue, githubPlace + mailValue}, // mail's is not sent there
		{"evil.org", githubValue, githubValue},
	} {
		for _, size := range []int{1 << 20, 4096, len(githubValue), 3, 2, 1} {
			if got := redact(t, s, true, tt.host, tt.text, size); got != tt.want {
				t.Errorf("%s, pieces of %d: %.200q, want %.200q", tt.host, size, got, tt.want)
			}
		}
		for _, size := range []int{1, 2, 3, 5, 36} { // at most three letters go early
			got := redact(t, s, false, tt.host, tt.text, size)
			if strings.Contains(got, githubValue[4:]) && strings.Contains(tt.want, githubPlace) || len(got) > len(tt.want)+harmless*strings.Count(tt.want, "PLACEHOLDER") {
				t.Errorf("%s, pieces of %d: %.200q", tt.host, size, got)
			}
		}
	}
}

// TestOverlaps: of values that begin alike the longest counts.
func TestOverlaps(t *testing.T) {
	a, b := github(), github()
	b.Name, b.Placeholder, b.Value = "OTHER", strings.Repeat("b", 20), githubValue+"-and-more"
	s := newSet(t, a, b)
	for _, size := range []int{5, 13, 1000} {
		if got := redact(t, s, true, "api.github.com", "1 "+a.Value+" 2 "+b.Value+" 3 "+a.Value+"-an", size); !strings.HasSuffix(got, " 2 "+b.Placeholder+" 3 "+a.Placeholder+"-an") {
			t.Errorf("pieces of %d: %q", size, got)
		}
	}
}

// TestProgress: what may be the beginning of a value is not waited for, as long as that tells nothing, and what is none goes at once.
func TestProgress(t *testing.T) {
	r, w := io.Pipe()
	body := newSet(t, github()).ResponseBody("api.github.com", r)
	buf := make([]byte, 100)
	for _, message := range []string{"data: hello\n\n", "ends like it begins: gh", "ghp", "no"} {
		go func() { _, _ = io.WriteString(w, message) }()
		n, err := body.Read(buf)
		if err != nil || string(buf[:n]) != message {
			t.Fatalf("%q, %v; want %q", buf[:n], err, message)
		}
	}
	go func() { _, _ = io.WriteString(w, githubValue[:20]); _ = w.Close() }()
	rest, err := io.ReadAll(body)
	if err != nil || string(rest) != githubValue[:20] {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestResponseHeader(t *testing.T) {
	s := newSet(t, github(), mail())
	h := http.Header{"Location": {"https://x/?t=" + githubValue}, "Set-Cookie": {"a=1", "b=" + githubValue}, "Content-Length": {"5"}}
	s.ResponseHeader("api.github.com", h)
	if h.Get("Location") != "https://x/?t="+githubPlace || h["Set-Cookie"][1] != "b="+githubPlace || h.Get("Content-Length") != "5" {
		t.Errorf("%v", h)
	}
	s.ResponseHeader("mail.example.com", h) // whose value is longer than its placeholder
	if h.Get("Content-Length") != "" {
		t.Errorf("%v", h)
	}
	h = http.Header{"X": {githubValue}, "Content-Length": {"5"}}
	if s.ResponseHeader("evil.org", h); h.Get("X") != githubValue || h.Get("Content-Length") == "" {
		t.Errorf("%v", h)
	}
}

// naive replaces as the redactor does, of a text that is there as a whole.
func naive(text string, words []*word) string {
	var b strings.Builder
next:
	for text != "" {
		for _, w := range words {
			if strings.HasPrefix(text, string(w.from)) {
				b.Write(w.to)
				text = text[len(w.from):]
				continue next
			}
		}
		b.WriteByte(text[0])
		text = text[1:]
	}
	return b.String()
}

// FuzzRedact: whatever the pieces, the result is that of the whole text. Where the beginnings of values are not held back, no
// value is whole all the same.
func FuzzRedact(f *testing.F) {
	const held = 2
	f.Add("xabcabcabdx", "abcabd", "abcab", []byte{1, 2})
	f.Add("aaaaaaaaaaab", "aaaa", "aab", []byte{3})
	f.Add(strings.Repeat("abab", 10), "ababab", "babb", []byte{5, 1})
	f.Fuzz(func(t *testing.T, text, one, other string, cuts []byte) {
		if one == "" || other == "" || one == other || len(cuts) == 0 {
			return
		}
		if len(one) < len(other) {
			one, other = other, one
		}
		if len(other) <= held {
			return // no value is as short
		}
		var sizes []int
		for _, c := range cuts {
			sizes = append(sizes, int(c))
		}
		words := func() []*word { return []*word{newWord(one, "\x01"), newWord(other, "\x02")} }
		r := &redactor{src: &pieces{text: text, sizes: sizes}, chunk: make([]byte, 7), words: words()}
		got, err := io.ReadAll(r)
		if want := naive(text, words()); err != nil || string(got) != want {
			t.Fatalf("%q of %q without %q and %q in pieces of %v: %v; want %q", got, text, one, other, sizes, err, want)
		}
		r = &redactor{src: &pieces{text: text, sizes: sizes}, chunk: make([]byte, 7), words: words(), harmless: held}
		loose, err := io.ReadAll(r)
		if err != nil || len(loose) < len(got) {
			t.Fatalf("%q of %q without %q and %q in pieces of %v: %v", loose, text, one, other, sizes, err)
		}
		// Only beginnings of values are in it that the strict form has not.
		at := 0
		for _, c := range loose {
			if at < len(got) && got[at] == c {
				at++
			}
		}
		if at != len(got) {
			t.Fatalf("%q is not in %q", got, loose)
		}
	})
}

// FuzzBody: a placeholder is found whatever the pieces, and nothing else is.
func FuzzBody(f *testing.F) {
	f.Add("xx"+mailPlace+"yy", []byte{3, 1})
	f.Add(mailPlace[:10]+mailPlace, []byte{200})
	s := newSet(f, github(), mail())
	f.Fuzz(func(t *testing.T, text string, cuts []byte) {
		if len(cuts) == 0 {
			return
		}
		var sizes []int
		for _, c := range cuts {
			sizes = append(sizes, int(c))
		}
		got, err := io.ReadAll(s.Body("", &pieces{text: text, sizes: sizes}))
		has := strings.Contains(text, mailPlace) || strings.Contains(text, githubPlace)
		if (err != nil) != has || !has && string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

// TestLongBody: memory does not grow with a body.
func TestLongBody(t *testing.T) {
	s := newSet(t, github())
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	r := s.ResponseBody("api.github.com", io.NopCloser(io.LimitReader(repeat{noise}, 64<<20)))
	if n, err := io.Copy(io.Discard, r); err != nil || n != 64<<20 {
		t.Fatal(n, err)
	}
	if red, ok := r.(*redactor); !ok || cap(red.text) > 4*chunkSize || cap(red.store) > 4*chunkSize {
		t.Error("it has grown")
	}
	b := s.Body("", io.LimitReader(repeat{noise}, 64<<20))
	if n, err := io.Copy(io.Discard, b); err != nil || n != 64<<20 {
		t.Fatal(n, err)
	}
	if scan, ok := b.(*body); !ok || cap(scan.border) > 1024 {
		t.Error("it has grown")
	}
}

type repeat struct{ of []byte }

func (r repeat) Read(p []byte) (int, error) { return copy(p, r.of), nil }

func BenchmarkResponseBody(b *testing.B) {
	s := newSet(b, github())
	text := bytes.Repeat([]byte("some text that goes past, line by line\n"), 1<<15)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		_, _ = io.Copy(io.Discard, s.ResponseBody("api.github.com", io.NopCloser(bytes.NewReader(text))))
	}
}

func BenchmarkBody(b *testing.B) {
	s := newSet(b, github())
	text := bytes.Repeat([]byte("some text that goes past, line by line\n"), 1<<15)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{s.Body("api.github.com", bytes.NewReader(text))})
	}
}
