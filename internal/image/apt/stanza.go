package apt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Stanza is one paragraph of a Debian control file, by field. Folded lines are joined by a newline.
type Stanza map[string]string

// Bounds of what Stanzas reads.
const (
	maxLine   = 1 << 20
	maxFields = 1 << 10
	maxStanza = 4 << 20
)

// Stanzas calls f for every paragraph of r (Packages, status, .sources) and stops at its first error.
func Stanzas(r io.Reader, f func(Stanza) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), maxLine)
	cur, last, size := Stanza{}, "", 0
	flush := func() error {
		if len(cur) == 0 {
			return nil
		}
		done := cur
		cur, last, size = Stanza{}, "", 0
		return f(done)
	}
	for s.Scan() {
		line := strings.TrimRight(s.Text(), " \t\r")
		size += len(line)
		name, value, colon := strings.Cut(line, ":")
		switch {
		case line == "":
			if err := flush(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return errors.New("control file: a folded line before any field")
			}
			cur[last] += "\n" + strings.TrimSpace(line)
		case !colon || name == "" || strings.ContainsAny(name, " \t"):
			return fmt.Errorf("control file: %.80q is no field", line)
		case len(cur) >= maxFields:
			return errors.New("control file: a paragraph has too many fields")
		default:
			last = name
			cur[name] = strings.TrimSpace(value)
		}
		if size > maxStanza {
			return errors.New("control file: a paragraph is too long")
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("control file: %w", err)
	}
	return flush()
}
