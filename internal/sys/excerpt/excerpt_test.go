package excerpt

import (
	"fmt"
	"strings"
	"testing"
)

func TestLastLines(t *testing.T) {
	var console strings.Builder
	for i := range 40 {
		fmt.Fprintf(&console, "line %d\r\n\r\n", i)
	}
	console.WriteString("\x1b]0;title\x07 \u202e\xff" + strings.Repeat("x", 2000))
	got := LastLines([]byte(console.String()), 20)
	lines := strings.Split(got, "\n")
	if len(lines) != 20 || lines[0] != "line 21" || lines[18] != "line 39" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	if last := lines[19]; !strings.HasPrefix(last, `\x1b]0;title\x07 \u202e`) || len(last) > 600 {
		t.Errorf("%q", last)
	}
	if got := LastLines(nil, 20); got != "" {
		t.Errorf("an empty console gives %q", got)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü\n\t": "plain ü\n\t", "\x00\x1b\x7f": `\x00\x1b\x7f`, "\u009b": `\u009b`, "\xfe": `\ufffd`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}
