package api

import (
	"strings"
	"unicode/utf8"

	"github.com/smolvm/smolvm/errdefs"
)

// Limits of a glob: of its bytes, and of what its alternatives multiply to.
const (
	maxGlob       = 256
	maxGlobsOfOne = 64
)

// ParseGlob reads one of a rule's paths, and returns it without alternatives: what it matches is what one of them does. They are
// globs as doublestar has them, less what could mean two things or more than it seems to: a class never matches a slash, and a
// double star stands for whole segments.
func ParseGlob(text string) ([]string, error) {
	invalid := func(format string, args ...any) error {
		return errdefs.Invalid.Errorf("path %q: "+format, append([]any{text}, args...)...)
	}
	switch {
	case !strings.HasPrefix(text, "/"):
		return nil, invalid("it does not begin with a slash")
	case len(text) > maxGlob:
		return nil, errdefs.Invalid.Errorf("path %.32q…: %d bytes are more than %d", text, len(text), maxGlob)
	case !utf8.ValidString(text):
		return nil, invalid("it is not UTF-8")
	}
	s := globScan{text: text}
	if rest := s.run(); s.why != "" {
		return nil, invalid("%s", s.why)
	} else if rest != "" {
		return nil, invalid(`a comma separates paths: give two, or write it as \,`)
	}
	for i, g := range s.out {
		if why := oddGlob(g); why != "" {
			return nil, invalid("%s", why)
		}
		s.out[i] = literalSlashes(g)
	}
	return s.out, nil
}

// splitGlobs cuts a list at its commas, those apart that belong to a glob.
func splitGlobs(text string) []string {
	var out []string
	for {
		s := globScan{text: text}
		rest := s.run()
		if s.why != "" || rest == "" {
			return append(out, text)
		}
		out = append(out, text[:len(text)-len(rest)])
		text = rest[1:]
	}
}

// globScan reads a glob up to its end, or to a comma that is not its own.
type globScan struct {
	text string
	out  []string // what was read, each with other alternatives
	why  string   // it is none

	joint bool // a group was the last that was read
}

// run returns what it left unread.
func (s *globScan) run() string {
	s.out = []string{""}
	for i := 0; i < len(s.text); {
		var n int
		switch s.text[i] {
		case ',':
			return s.text[i:]
		case '}':
			s.why = "a brace is closed that was not opened"
			return ""
		case '{':
			n = s.group(s.text[i:])
		default:
			if n = s.term(s.text[i:]); n > 0 {
				s.add(s.text[i : i+n])
			}
		}
		if s.why != "" {
			return ""
		}
		i += n
	}
	return ""
}

func (s *globScan) add(term string) {
	for i, head := range s.out {
		s.out[i] = s.join(head, term, s.joint)
	}
	s.joint = false
}

// join adds to a glob. Stars that only braces bring together would be more than they look like.
func (s *globScan) join(head, rest string, joint bool) string {
	if joint && strings.HasSuffix(head, "*") && strings.HasPrefix(rest, "*") {
		s.why = "braces join stars"
	}
	return head + rest
}

// group reads "{a,b}" and returns how long it is.
func (s *globScan) group(text string) int {
	alternatives := []string{""}
	for i := 1; i < len(text); {
		last := &alternatives[len(alternatives)-1]
		n := 1
		switch text[i] {
		case '{':
			s.why = "braces in braces"
			return 0
		case ',':
			alternatives = append(alternatives, "")
		case '}':
			if len(s.out)*len(alternatives) > maxGlobsOfOne {
				s.why = "its braces make too many alternatives; give them as paths"
				return 0
			}
			var all []string
			for _, head := range s.out {
				for _, a := range alternatives {
					all = append(all, s.join(head, a, true))
				}
			}
			s.out, s.joint = all, true
			return i + 1
		default:
			if n = s.term(text[i:]); n == 0 {
				return 0
			}
			*last += text[i : i+n]
		}
		i += n
	}
	s.why = "a brace is not closed"
	return 0
}

// term is the length of what text begins with: a character, an escaped one, a class.
func (s *globScan) term(text string) int {
	switch c := text[0]; {
	case c < 0x20 || c == 0x7f:
		s.why = "it has a control character"
	case c == '\\' && (len(text) == 1 || text[1] == '/' || text[1] < 0x20 || text[1] >= 0x7f):
		s.why = "its backslash stands in front of nothing"
	case c == '\\':
		return 2
	case c == '[':
		return s.class(text)
	default:
		return 1
	}
	return 0
}

// class reads "[a-z_]". What a class may hold is little, so that it cannot match a slash by accident, nor anything by being
// negated.
func (s *globScan) class(text string) int {
	end := strings.IndexByte(text, ']')
	if end < 2 {
		s.why = "a class is empty or not closed"
		return 0
	}
	in := text[1:end]
	for i := 0; i < len(in); i++ {
		k := kindOf(in[i])
		switch {
		case k == 0 || in[i] == '-' && i > 0:
			s.why = "a class takes letters, digits, _.~@, ranges of them like a-z, and - in front"
			return 0
		case i+2 < len(in) && in[i] != '-' && in[i+1] == '-':
			if k != kindOf(in[i+2]) || k == '.' || in[i] > in[i+2] {
				s.why = "a range in a class goes from a letter to a later one, or from a digit to a greater one"
				return 0
			}
			i += 2
		}
	}
	return end + 1
}

// kindOf is the kind of a character in a class; 0: it may not be in one.
func kindOf(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z':
		return 'a'
	case 'A' <= c && c <= 'Z':
		return 'A'
	case '0' <= c && c <= '9':
		return '0'
	case strings.IndexByte("_.~@-", c) >= 0:
		return '.'
	}
	return 0
}

// oddGlob says what is wrong with a glob that has no alternatives any more.
func oddGlob(g string) string {
	for segment := range strings.SplitSeq(g[1:], "/") {
		if segment == "." || segment == ".." {
			return "no path has a segment " + segment
		}
		if segment == "**" {
			continue
		}
		for i := 0; i+1 < len(segment); i++ {
			if segment[i] == '\\' {
				i++
			} else if segment[i:i+2] == "**" {
				return "a double star stands alone between slashes"
			}
		}
	}
	if strings.Contains(g, "//") {
		return "no path has two slashes in a row"
	}
	for i := range len(g) {
		if escape := escapeAt(g, i); escape != "" && !strings.EqualFold(escape, "%2f") {
			return "paths are compared decoded: write what " + escape + " stands for; only %2F is kept as it is"
		}
	}
	return ""
}

// escapeAt is the percent-encoded byte at g[i:], "" when there is none.
func escapeAt(g string, i int) string {
	if g[i] != '%' || i+2 >= len(g) || !hex(g[i+1]) || !hex(g[i+2]) {
		return ""
	}
	return g[i : i+3]
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// literalSlashes writes encoded slashes in the one way in which they are compared.
func literalSlashes(g string) string { return strings.ReplaceAll(g, "%2f", "%2F") }
