package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// TestScreen: a shorter text leaves nothing of a longer one.
func TestScreen(t *testing.T) {
	if got := Screen("a\nb\n"); got != "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J" {
		t.Errorf("%q", got)
	}
}

func TestEscape(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "Grüße, 世界\n\ttab", "Grüße, 世界\n\ttab"},
		{"colour", "\x1b[31mred", `\x1b[31mred`},
		{"title", "\x1b]0;evil\a", `\x1b]0;evil\x07`},
		{"carriage return", "safe\rlies", `safe\x0dlies`},
		{"C1", "\u009b31m", `\u{9b}31m`},
		{"bidi", "\u202egnp.exe", `\u{202e}gnp.exe`},
		{"no UTF-8", "a\xff\xfeb", `a\xff\xfeb`},
		{"delete", "\x7f", `\x7f`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Escape(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			var b bytes.Buffer
			e := &Escaper{W: &b}
			for i := range len(tt.in) { // byte by byte, as a console may come
				if n, err := e.Write([]byte{tt.in[i]}); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			if got := b.String(); got != tt.want {
				t.Errorf("in pieces: got %q, want %q", got, tt.want)
			}
		})
	}
	var b bytes.Buffer
	if _, err := (&Escaper{W: &b}).Write([]byte("console\r\nline\r\r\n")); err != nil || b.String() != "console\nline\n" {
		t.Errorf("line ends: %q (%v)", b.String(), err)
	}
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	err := errdefs.NotFound.Errorf("vm %q: it said \x1b[2J", "web").WithRemedy("smolvm ls -a")
	Report(&b, err)
	if want := "smolvm: vm \"web\": it said \\x1b[2J\n  try: smolvm ls -a\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	Report(&b, errors.New("plain"))
	if b.String() != "smolvm: plain\n" {
		t.Errorf("got %q", b.String())
	}
}

func TestJSON(t *testing.T) {
	in := []string{"a<b>&c", "\x1b[31m", "\u009b\u202e\U000e0041", "日本"}
	var b bytes.Buffer
	if err := JSON(&b, in); err != nil {
		t.Fatal(err)
	}
	var out []string
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || strings.Join(out, "|") != strings.Join(in, "|") {
		t.Errorf("%q came back as %q (%v)", in, out, err)
	}
	if i := strings.IndexFunc(b.String(), hidden); i >= 0 {
		t.Errorf("a terminal would act on %q", b.String()[i:])
	}
	b.Reset()
	if err := JSON(&b, List[string](nil)); err != nil || b.String() != "[]\n" {
		t.Errorf("nothing is %q (%v)", b.String(), err)
	}
}

func TestWarnings(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(Warnings(&b)).With("vm", "web")
	log.Info("unheard")
	log.Warn("no accelerator\x1b[0m", "engine", "qemu")
	if want := "smolvm: warning: no accelerator\\x1b[0m, vm web, engine qemu\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// TestProgressSilent: without a terminal and unasked, nothing is said.
func TestProgressSilent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, verbose := range []bool{false, true} {
		p := NewProgress(w, verbose, false)
		p.Report(progress("packages", "unpack apt\x1b", 1))
		p.Report(progress("packages", "unpack apt\x1b", 2))
		p.Stop()
		p.Stop()
		p.Report(progress("late", "", 0))
	}
	_ = w.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil || b.String() != "smolvm: packages: unpack apt\\x1b\n" {
		t.Errorf("it said %q (%v)", b.String(), err)
	}
}

// TestProgressStays: what is told once is printed wherever that is, and stays.
func TestProgressStays(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, drawn := range []bool{false, true} {
		p := NewProgress(w, false, false)
		if drawn {
			p.over = false
			p.show()
		}
		p.Report(progress(api.StageAccelerator, "emulated\x1b", 0))
		p.Stop()
	}
	_ = w.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil || strings.Count(b.String(), "smolvm: emulated\\x1b\n") != 2 {
		t.Errorf("it said %q (%v)", b.String(), err)
	}
}

func progress(stage, detail string, done int64) api.Progress {
	return api.Progress{Stage: stage, Detail: detail, Done: done, Total: 10}
}

func FuzzEscaper(f *testing.F) {
	f.Add([]byte("a\x1b[0m\r\n\xc3"), 2)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		if len(data) == 0 {
			return
		}
		cut = ((cut % len(data)) + len(data)) % len(data)
		var whole, pieces bytes.Buffer
		_, _ = (&Escaper{W: &whole}).Write(data)
		e := &Escaper{W: &pieces}
		_, _ = e.Write(data[:cut])
		_, _ = e.Write(data[cut:])
		if whole.String() != pieces.String() {
			t.Errorf("%q in pieces is %q", whole.String(), pieces.String())
		}
		if i := strings.IndexFunc(whole.String(), hidden); i >= 0 {
			t.Errorf("a terminal would act on %q", whole.String()[i:])
		}
	})
}

func TestFigure(t *testing.T) {
	for _, tt := range []struct {
		f         api.Figure
		value, ok string
	}{
		{api.Figure{Value: 1.23456, Unit: "ratio", Goal: ">= 1", OK: true}, "1.235 ratio", "yes"},
		{api.Figure{Value: 0.5, Unit: "ratio", Goal: ">= 1"}, "0.5 ratio", "NO"},
		{api.Figure{Value: 3, Unit: "ms", OK: true}, "3 ms", ""},
		{api.Figure{Unit: "ratio", Goal: ">= 1", OK: true, Skipped: "needs root"}, "-", "skipped: needs root"},
	} {
		if value, ok := Figure(tt.f); value != tt.value || ok != tt.ok {
			t.Errorf("%+v is shown as %q, %q", tt.f, value, ok)
		}
	}
}
