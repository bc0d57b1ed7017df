package show

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Report prints an error as people and scripts expect it: what failed, why, and the command that helps.
func Report(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "smolvm: %s\n", strings.TrimRight(Escape(err.Error()), "\n"))
	if remedy := errdefs.RemedyOf(err); remedy != "" {
		_, _ = fmt.Fprintf(w, "  try: %s\n", Escape(remedy))
	}
}

// Escape makes what may come from a guest harmless on a terminal: everything that does not print is shown by its number.
func Escape(s string) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		escapeRune(&b, r, s[:n])
		s = s[n:]
	}
	return b.String()
}

func hidden(r rune) bool {
	return r != '\n' && r != '\t' && !unicode.IsPrint(r)
}

func escapeRune(b *strings.Builder, r rune, raw string) {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		fmt.Fprintf(b, `\x%02x`, raw[0])
	case !hidden(r):
		b.WriteString(raw)
	case r < 0x80:
		fmt.Fprintf(b, `\x%02x`, r)
	default:
		fmt.Fprintf(b, `\u{%x}`, r)
	}
}

// Cell is Escape for one field of a table.
func Cell(s string) string {
	s = Escape(s)
	s = strings.ReplaceAll(s, "\n", " ")
	return strings.ReplaceAll(s, "\t", " ")
}

// Escaper escapes what is written through it. Lines may end as terminals and kernels end them, with a carriage return.
type Escaper struct {
	W    io.Writer
	rest []byte // the beginning of a character
}

// Write implements io.Writer.
func (e *Escaper) Write(p []byte) (int, error) {
	data := append(e.rest, p...)
	var b strings.Builder
	for len(data) > 0 {
		if data[0] == '\r' || !utf8.FullRune(data) {
			if len(data) == 1 || data[0] != '\r' {
				break // more is needed to tell
			}
			if data[1] == '\n' || data[1] == '\r' {
				data = data[1:]
				continue
			}
		}
		r, n := utf8.DecodeRune(data)
		escapeRune(&b, r, string(data[:n]))
		data = data[n:]
	}
	e.rest = append([]byte(nil), data...)
	if _, err := io.WriteString(e.W, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Checks lists what doctor found.
func Checks(checks []api.Check) string {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%-7s  %-*s  %s\n", c.Status, width, Cell(c.Name), Cell(c.Detail))
		if c.Remedy != "" {
			fmt.Fprintf(&b, "%-7s  %-*s  try: %s\n", "", width, "", Cell(c.Remedy))
		}
	}
	return b.String()
}

// JSON prints v for programs. What a terminal would act on stays escaped.
func JSON(w io.Writer, v any) error {
	b, err := marshal(v, "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// JSONLine prints v in one line.
func JSONLine(w io.Writer, v any) error {
	b, err := marshal(v, "")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func marshal(v any, indent string) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return nil, errdefs.Internal.Errorf("print JSON: %w", err)
	}
	if strings.IndexFunc(b.String(), hidden) < 0 {
		return []byte(b.String()), nil
	}
	var out strings.Builder
	for _, r := range b.String() {
		switch {
		case !hidden(r):
			out.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return []byte(out.String()), nil
}
