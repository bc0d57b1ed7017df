package terminal

import (
	"io"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// DetachKeys are what leaves a command, unless others are asked for.
const DetachKeys = "ctrl-p,ctrl-q"

// Keys are a sequence of keys, as a flag.
type Keys []byte

// String implements pflag.Value.
func (k *Keys) String() string {
	var names []string
	for _, b := range *k {
		if b < ' ' {
			names = append(names, "ctrl-"+strings.ToLower(string(rune(b+'@'))))
		} else {
			names = append(names, string(rune(b)))
		}
	}
	return strings.Join(names, ",")
}

// Type implements pflag.Value.
func (*Keys) Type() string { return "KEYS" }

// Set implements pflag.Value: keys with commas between them, each a character or ctrl- and one of a-z @ [ \ ] ^ _.
func (k *Keys) Set(text string) error {
	*k = nil
	if text == "" {
		return nil
	}
	for name := range strings.SplitSeq(text, ",") {
		c, ctrl := strings.CutPrefix(name, "ctrl-")
		switch {
		case len(c) != 1 || c[0] <= ' ' || c[0] > '~':
			return errdefs.Invalid.Errorf("%q is no key: give a character, or ctrl- and one", name)
		case !ctrl:
			*k = append(*k, c[0])
		case strings.ToUpper(c)[0] >= '@' && strings.ToUpper(c)[0] <= '_':
			*k = append(*k, strings.ToUpper(c)[0]-'@')
		default:
			return errdefs.Invalid.Errorf("there is no key %q", name)
		}
	}
	return nil
}

// Input passes on what is typed, until the keys are.
type Input struct {
	R      io.Reader
	Keys   []byte
	Detach func() // called once, when they were

	matched int    // how many of the keys were typed, and are held back
	out     []byte // to be returned
	end     error
}

// Read implements io.Reader. After the keys it returns io.EOF.
func (i *Input) Read(p []byte) (int, error) {
	buf := make([]byte, max(len(p), 1))
	for len(i.out) == 0 {
		if i.end != nil {
			return 0, i.end
		}
		n, err := i.R.Read(buf)
		if slices.ContainsFunc(buf[:n], i.typed) {
			i.end = io.EOF
			i.Detach()
		}
		if err != nil && i.end == nil {
			i.out, i.matched, i.end = append(i.out, i.Keys[:i.matched]...), 0, err
		}
	}
	n := copy(p, i.out)
	i.out = i.out[n:]
	return n, nil
}

// typed takes a key and reports whether it was the last one of the sequence.
func (i *Input) typed(b byte) bool {
	if len(i.Keys) == 0 {
		i.out = append(i.out, b)
		return false
	}
	if b != i.Keys[i.matched] {
		i.out = append(i.out, i.Keys[:i.matched]...)
		i.matched = 0
	}
	if b != i.Keys[i.matched] {
		i.out = append(i.out, b)
		return false
	}
	i.matched++
	return i.matched == len(i.Keys)
}
