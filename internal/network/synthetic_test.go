package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestSynthetic(t *testing.T) {
	var journal bytes.Buffer
	s := NewSynthetic(&journal)
	a, b := s.Addr("a.example"), s.Addr("b.example")
	if a != netip.MustParseAddr("198.18.1.0") || b != a.Next() || s.Addr("a.example") != a {
		t.Errorf("%s, %s", a, b)
	}
	if name, ok := s.Name(b); name != "b.example" || !ok {
		t.Errorf("%q, %v", name, ok)
	}
	for _, text := range []string{"198.18.0.255", "198.18.1.2", "198.19.255.255", "1.1.1.1", "::1"} {
		if name, ok := s.Name(netip.MustParseAddr(text)); ok {
			t.Errorf("%s is %q", text, name)
		}
	}
	for _, name := range []string{"", "A.example", "127.0.0.1", "a\"b"} {
		if got := s.Addr(name); got.IsValid() {
			t.Errorf("%q got %s", name, got)
		}
	}
	var saved bytes.Buffer
	if err := s.Save(&saved); err != nil || saved.String() != journal.String() {
		t.Errorf("saved %q (%v), the journal has %q", saved.String(), err, journal.String())
	}
	// A gateway that comes after it, after a death in the middle of a line.
	next := NewSynthetic(&journal)
	if err := next.Load(strings.NewReader(saved.String() + `"c.exam`)); err != nil {
		t.Fatal(err)
	}
	if c := next.Addr("c.example"); next.Addr("b.example") != b || c != b.Next() {
		t.Errorf("after a restart: %s", c)
	}
}

func TestSyntheticIsBounded(t *testing.T) {
	s := NewSynthetic(nil)
	for i := range maxSynthetic {
		if a := s.Addr(fmt.Sprintf("n%d.example", i)); !a.IsValid() {
			t.Fatalf("name %d got none", i)
		}
	}
	if a := s.Addr("more.example"); a.IsValid() {
		t.Errorf("one more got %s", a)
	}
	first, _ := s.Name(netip.MustParseAddr("198.18.1.0"))
	if first != "n0.example" || !netip.MustParsePrefix("198.18.0.0/15").Contains(s.Addr(fmt.Sprintf("n%d.example", maxSynthetic-1))) {
		t.Error("names moved")
	}
}

func TestSyntheticLoadRefuses(t *testing.T) {
	for _, text := range []string{"x\n", "\"A\"\n", "\"a\"\n\"a\"\n", "{}\n", "\n"} {
		if err := NewSynthetic(nil).Load(strings.NewReader(text)); err == nil {
			t.Errorf("%q is fine", text)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestSyntheticJournalFails: an address that would be forgotten is not given.
func TestSyntheticJournalFails(t *testing.T) {
	s := NewSynthetic(broken{})
	if a := s.Addr("a.example"); a.IsValid() {
		t.Errorf("it got %s", a)
	}
	if _, ok := s.Name(netip.MustParseAddr("198.18.1.0")); ok {
		t.Error("the address has a name")
	}
}
