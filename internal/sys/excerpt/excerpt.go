// Package excerpt makes text of a guest's fit for errors, logs and terminals: short, and without what steers a terminal.
//
// Layer: leaf. It imports none of ours.
package excerpt

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable escapes what the guest could do to a terminal or a log.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			b.WriteString(`\ufffd`)
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// LastLines returns the last n lines of a console, escaped, each of a bearable length.
func LastLines(console []byte, n int) string {
	const longest = 400
	var lines []string
	for line := range strings.SplitSeq(string(console), "\n") {
		line = strings.TrimRight(line, "\r \t")
		if line == "" {
			continue
		}
		if len(line) > longest {
			line = Cut(line, longest) + "…"
		}
		lines = append(lines, Printable(line))
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Cut shortens text to at most most bytes, between two characters.
func Cut(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return text
}
