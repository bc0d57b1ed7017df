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
	p := paragraph{fields: Stanza{}}
	for s.Scan() {
		line := strings.TrimRight(s.Text(), " \t\r")
		if line == "" {
			if err := p.end(f); err != nil {
				return err
			}
			continue
		}
		if err := p.add(line); err != nil {
			return fmt.Errorf("control file: %w", err)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("control file: %w", err)
	}
	return p.end(f)
}

// paragraph is the one that is being read.
type paragraph struct {
	fields Stanza
	last   string          // the field that a folded line goes on with
	value  strings.Builder // of last
	size   int
}

// add takes a line that is not empty.
func (p *paragraph) add(line string) error {
	if p.size += len(line); p.size > maxStanza {
		return errors.New("a paragraph is too long")
	}
	name, value, colon := strings.Cut(line, ":")
	switch {
	case line[0] == '#':
	case line[0] == ' ' || line[0] == '\t':
		if p.last == "" {
			return errors.New("a folded line before any field")
		}
		p.value.WriteByte('\n')
		p.value.WriteString(strings.TrimSpace(line))
	case !colon || name == "" || strings.ContainsAny(name, " \t"):
		return fmt.Errorf("%.80q is no field", line)
	case len(p.fields) >= maxFields:
		return errors.New("a paragraph has too many fields")
	default:
		p.store()
		p.last = name
		p.value.WriteString(strings.TrimSpace(value))
	}
	return nil
}

// store puts the field that was read last among the others.
func (p *paragraph) store() {
	if p.last != "" {
		p.fields[p.last] = p.value.String()
	}
	p.last = ""
	p.value.Reset()
}

// end hands the paragraph over, if there is one, and begins the next.
func (p *paragraph) end(f func(Stanza) error) error {
	p.store()
	done := p.fields
	if len(done) == 0 {
		p.size = 0
		return nil
	}
	p.fields, p.size = Stanza{}, 0
	return f(done)
}
