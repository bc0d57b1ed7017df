package network

import (
	"strings"
	"unicode/utf8"

	"github.com/smolvm/smolvm/errdefs"
)

// maxPath bounds a path that is decided on.
const maxPath = 8 << 10

// Path is a request's path in two forms that mean the same.
type Path struct {
	// Clean is decoded, to be compared and shown. Only an encoded slash stays, as %2F: servers take it for a slash or not, and
	// Request asks about both.
	Clean string
	// Raw is what is to be sent: what came, with those bytes encoded that may not stand in a path as they are.
	Raw string
}

// CleanPath reads a request's path as it came, without the query. An error says why nobody could be sure what it means to a
// server: what has no path to be decided on may be let through only by rules that say nothing about paths (Request with "").
func CleanPath(escaped string) (Path, error) {
	if escaped == "" {
		escaped = "/"
	}
	refuse := func(what string) (Path, error) {
		return Path{}, errdefs.Invalid.Errorf("the path has %s", what)
	}
	switch {
	case len(escaped) > maxPath:
		return Path{}, errdefs.Invalid.Errorf("the path has %d bytes, more than %d", len(escaped), maxPath)
	case escaped[0] != '/':
		return Path{}, errdefs.Invalid.Errorf("the path does not begin with a slash")
	}
	clean, raw, what := decode(escaped)
	if what != "" {
		return refuse(what)
	}
	if !utf8.ValidString(clean) {
		return refuse("what is not UTF-8")
	}
	if what = oddIn(clean); what != "" {
		return refuse(what)
	}
	return Path{clean, raw}, nil
}

// decode decodes a path once. what is why it does not.
func decode(escaped string) (clean, raw, what string) {
	var c, r strings.Builder
	for i := 0; i < len(escaped); i++ {
		b := escaped[i]
		switch {
		case b == '%' && (i+2 >= len(escaped) || unhex(escaped[i+1]) < 0 || unhex(escaped[i+2]) < 0):
			return "", "", "a percent sign that encodes nothing"
		case b == '%':
			r.WriteString(escaped[i : i+3])
			b = byte(unhex(escaped[i+1])<<4 | unhex(escaped[i+2]))
			i += 2
			if b == '/' {
				c.WriteString("%2F")
				continue
			}
			if what = encodedOdd(b); what != "" {
				return "", "", what
			}
			c.WriteByte(b)
			// An encoded percent sign in front of two digits would be decoded by whoever decodes twice.
			if b == '%' && hexAhead(escaped[i+1:]) {
				return "", "", "what is encoded twice"
			}
		case b == '?' || b == '#':
			return "", "", "a query or a fragment"
		default:
			if sendable(b) {
				r.WriteByte(b)
			} else {
				const digits = "0123456789ABCDEF"
				r.Write([]byte{'%', digits[b>>4], digits[b&15]})
			}
			c.WriteByte(b)
		}
	}
	return c.String(), r.String(), ""
}

func encodedOdd(b byte) string {
	switch b {
	case '?':
		return "an encoded question mark (%3F)"
	case '#':
		return "an encoded hash (%23)"
	}
	return ""
}

// hexAhead reports whether the next two bytes, once decoded, are hexadecimal digits.
func hexAhead(escaped string) bool {
	for range 2 {
		switch {
		case escaped == "":
			return false
		case escaped[0] != '%':
			if unhex(escaped[0]) < 0 {
				return false
			}
			escaped = escaped[1:]
		case len(escaped) < 3 || unhex(escaped[1]) < 0 || unhex(escaped[2]) < 0 || unhex(byte(unhex(escaped[1])<<4|unhex(escaped[2]))) < 0:
			return false
		default:
			escaped = escaped[3:]
		}
	}
	return true
}

// oddIn says what a decoded path has that servers read in several ways.
func oddIn(clean string) string {
	for i := range len(clean) {
		switch c := clean[i]; {
		case c < 0x20 || c == 0x7f:
			return "a control byte"
		case c == '\\':
			return "a backslash, which some take for a slash"
		case c == ';':
			return "a semicolon, behind which some take what follows for parameters"
		}
	}
	slashed := asSlashes(clean)
	if strings.Contains(slashed, "//") {
		return "two slashes in a row"
	}
	for segment := range strings.SplitSeq(slashed, "/") {
		if segment == "." || segment == ".." {
			return "the segment " + segment
		}
	}
	return ""
}

// asSlashes is the other reading of a clean path: encoded slashes are slashes.
func asSlashes(clean string) string { return strings.ReplaceAll(clean, "%2F", "/") }

// sendable are the bytes that stand in a path as they are, to net/url as well.
func sendable(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("/-_.~!$&'()*+,=:@", b) >= 0
}

func unhex(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'f':
		return int(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}
