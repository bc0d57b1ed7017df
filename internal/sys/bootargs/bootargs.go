// Package bootargs sorts out what a user may put onto the kernel's command line.
//
// Layer: leaf. It imports none of ours.
package bootargs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxLeft bounds what is left: what the machine needs itself stands on the same line.
const maxLeft = 1700

// ourArgs are the parameters that are not the user's to set: they say how the guest boots, and where its console is.
func ourArgs() []string {
	return []string{"console", "root", "rootfstype", "ro", "rw", "init", "rdinit", "reboot", "panic", "pci", "ip", "quiet"}
}

// Clean returns what of text goes onto the kernel's command line. An error says what of it cannot be.
func Clean(text string) (string, error) {
	// To the kernel some bytes of other alphabets are spaces.
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("%.80q has other than printable ASCII characters", text)
	}
	words, whole := argWords(text)
	if !whole {
		return "", fmt.Errorf("a quotation mark is not closed in %.80q", text)
	}
	var kept []string
	for _, w := range words {
		switch name := argName(w); {
		case name == "--":
			return "", errors.New("what follows -- would be for init, which is ours")
		case name == "smolvm" || strings.HasPrefix(name, "smolvm."):
			return "", fmt.Errorf("%.80q is a parameter of SmolVM's own", w)
		case !slices.Contains(ourArgs(), name):
			kept = append(kept, w)
		}
	}
	left := strings.Join(kept, " ")
	if len(left) > maxLeft {
		return "", fmt.Errorf("%d bytes are left for the kernel, more than the %d for which there is room", len(left), maxLeft)
	}
	return left, nil
}

// argWords splits a command line as the kernel does, where quotation marks keep spaces; whole is false where one is not closed.
func argWords(line string) (words []string, whole bool) {
	quoted, begin := false, -1
	for i := range len(line) {
		switch {
		case line[i] == ' ' && !quoted:
			if begin >= 0 {
				words = append(words, line[begin:i])
			}
			begin = -1
			continue
		case line[i] == '"':
			quoted = !quoted
		}
		if begin < 0 {
			begin = i
		}
	}
	if begin >= 0 {
		words = append(words, line[begin:])
	}
	return words, !quoted
}

// argName is the parameter that a word sets, in the one form of those that the kernel takes for it.
func argName(word string) string {
	name, _, _ := strings.Cut(strings.ReplaceAll(word, `"`, ""), "=")
	if name == "--" {
		return name
	}
	return strings.ReplaceAll(name, "-", "_")
}
