package supervisor

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// consoleLines is how much of the console an error about a boot shows.
const consoleLines = 20

// printable escapes what the guest could do to a terminal or a log.
func printable(s string) string {
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

// lastLines returns the last n lines of a console, escaped, each of a bearable length.
func lastLines(console []byte, n int) string {
	const longest = 400
	var lines []string
	for line := range strings.SplitSeq(string(console), "\n") {
		line = strings.TrimRight(line, "\r \t")
		if line == "" {
			continue
		}
		if len(line) > longest {
			line = strings.ToValidUTF8(line[:longest], "") + "…"
		}
		lines = append(lines, printable(line))
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// panicLine finds what the kernel said when it panicked.
func panicLine(console []byte) (string, bool) {
	const mark = "Kernel panic - not syncing: "
	at := strings.LastIndex(string(console), mark)
	if at < 0 {
		return "", false
	}
	line, _, _ := strings.Cut(string(console[at+len(mark):]), "\n")
	return lastLines([]byte(line), 1), true
}
