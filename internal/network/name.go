package network

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/smolvm/smolvm/errdefs"
)

const (
	maxName  = 253
	maxLabel = 63
)

// Canonical returns a name as the policy compares it: lower case, IDNA, no trailing dot. What is no host name, or is an
// address in disguise, is an error. A name that is canonical already comes back as it is, without allocation.
func Canonical(name string) (string, error) {
	if plain(name) {
		return name, nil
	}
	text := strings.TrimSuffix(name, ".")
	for i := range len(text) {
		if text[i] >= 0x80 {
			if !utf8.ValidString(text) {
				return "", errdefs.Invalid.Errorf("%q is no host name", name)
			}
			var err error
			// The lookup profile maps what people type (case, width) and refuses what no registry gives out.
			if text, err = idna.Lookup.ToASCII(text); err != nil {
				return "", errdefs.Invalid.Errorf("%q is no host name: %w", name, err)
			}
			break
		}
	}
	if text = strings.ToLower(text); plain(text) {
		return text, nil
	}
	return "", errdefs.Invalid.Errorf("%q is no host name", name)
}

// plain reports whether a name is canonical. It is lenient about hyphens, and about underscores, which are usual in DNS.
func plain(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	start := 0 // of the label
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.':
			if i == start || i-start > maxLabel {
				return false
			}
			start = i + 1
		default:
			return false
		}
	}
	last := name[start:]
	return last != "" && len(last) <= maxLabel && !numeric(last)
}

// numeric reports whether a last label makes resolvers and libraries read the name as an address: 127.1, 2130706433,
// 0x7f.0.0.1. No top-level domain is like that.
func numeric(label string) bool {
	if label[0] < '0' || label[0] > '9' {
		return false
	}
	hex := len(label) >= 2 && label[0] == '0' && label[1] == 'x'
	if hex {
		label = label[2:]
	}
	for i := range len(label) {
		c := label[i]
		if (c < '0' || c > '9') && !(hex && 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// below reports whether a name is one of those under zone, or zone itself.
func below(name, zone string) bool {
	return strings.HasSuffix(name, zone) && (len(name) == len(zone) || name[len(name)-len(zone)-1] == '.')
}

// closedName says why a name is closed unless a rule names exactly it. Clouds hand out credentials under some names, and
// localhost is never somebody else's.
func closedName(name string) (why string, closed bool) {
	switch name {
	case "metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal",
		"metadata.azure.internal", "metadata.tencentyun.com", "metadata.packet.net", "metadata.platformequinix.com":
		return "it names a cloud's metadata service", true
	}
	if below(name, "localhost") {
		return "it names the local host", true
	}
	if below(name, reservedZone) {
		return "it is SmolVM's own name", true
	}
	return "", false
}

// reservedZone holds the names that mean something to the gateway itself. Nothing below it is ever resolved.
const reservedZone = "smolvm.internal"
