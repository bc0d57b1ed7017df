package apt

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestStanzas(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []Stanza
		bad      bool
	}{
		{"empty", "", nil, false},
		{"blank lines only", "\n\n \n", nil, false},
		{"one", "Package: a\nVersion: 1:2-3\n", []Stanza{{"Package": "a", "Version": "1:2-3"}}, false},
		{"two, no end", "Package: a\n\n\nPackage: b", []Stanza{{"Package": "a"}, {"Package": "b"}}, false},
		{"folded", "Depends: a,\n b\n .\nX: y\n", []Stanza{{"Depends": "a,\nb\n.", "X": "y"}}, false},
		{"comment", "# hello\nA: b\n# more\nC: d\n", []Stanza{{"A": "b", "C": "d"}}, false},
		{"carriage returns", "A: b\r\n\r\nC: d\r\n", []Stanza{{"A": "b"}, {"C": "d"}}, false},
		{"folded before a field", " a\n", nil, true},
		{"folded after a blank line", "A: b\n\n c\n", nil, true},
		{"no colon", "hello\n", nil, true},
		{"space in a name", "a b: c\n", nil, true},
		{"too long a line", "A: " + strings.Repeat("x", maxLine) + "\n", nil, true},
		{"too many fields", manyFields(maxFields + 2), nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []Stanza
			err := Stanzas(strings.NewReader(c.in), func(s Stanza) error { got = append(got, s); return nil })
			if (err != nil) != c.bad {
				t.Fatalf("got %v", err)
			}
			if c.bad {
				return
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %v", got)
			}
			for i := range got {
				if !maps.Equal(got[i], c.want[i]) {
					t.Errorf("got %v, want %v", got[i], c.want[i])
				}
			}
		})
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("f" + strings.Repeat("x", i%50) + string(rune('0'+i/50%10)) + string(rune('a'+i/500)) + ": v\n")
	}
	return b.String()
}

func TestStanzasStopsAtAnError(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	err := Stanzas(strings.NewReader("A: 1\n\nA: 2\n"), func(Stanza) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d calls, %v", n, err)
	}
}

func FuzzStanzas(f *testing.F) {
	f.Add("Package: a\nDepends: b,\n c\n\n# x\nPackage: d\n")
	f.Add(" folded\n")
	f.Fuzz(func(t *testing.T, in string) {
		_ = Stanzas(strings.NewReader(in), func(s Stanza) error {
			if len(s) == 0 || len(s) > maxFields {
				t.Errorf("a paragraph of %d fields", len(s))
			}
			for name := range s {
				if name == "" || strings.ContainsAny(name, " \t\n:") {
					t.Errorf("field %q", name)
				}
			}
			return nil
		})
	})
}
