package secret

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
)

// ResponseHeader puts placeholders in place of values in the headers, or the trailers, of a response of host. Where a
// placeholder is not as long as its value, the response's length is not known any more.
func (s *Set) ResponseHeader(host string, h http.Header) {
	list := s.of(host)
	if len(list) == 0 {
		return
	}
	slices.SortStableFunc(list, longestFirst)
	var pairs []string
	sameLength := true
	for _, one := range list {
		pairs = append(pairs, one.Value, one.Placeholder)
		sameLength = sameLength && len(one.Value) == len(one.Placeholder)
	}
	r := strings.NewReplacer(pairs...)
	for _, values := range h {
		for i, v := range values {
			values[i] = r.Replace(v)
		}
	}
	if !sameLength {
		h.Del("Content-Length")
	}
}

// longestFirst orders secrets so that a value that begins another one does not hide it.
func longestFirst(a, b Secret) int { return len(b.Value) - len(a.Value) }

// ResponseBody puts placeholders in place of values in the body of a response of host. It holds back no more than the
// beginning of a value, until what follows it is there.
func (s *Set) ResponseBody(host string, r io.ReadCloser) io.ReadCloser {
	list := s.of(host)
	if len(list) == 0 || r == nil {
		return r
	}
	slices.SortStableFunc(list, longestFirst)
	red := &redactor{src: r, chunk: make([]byte, chunkSize), harmless: harmless}
	for _, one := range list {
		red.words = append(red.words, newWord(one.Value, one.Placeholder))
	}
	return red
}

const (
	chunkSize = 16 << 10
	// So much of a value tells nothing, while holding it back would make a peer wait that talks in messages, any of which may
	// end with it.
	harmless = 3
)

// word is a text that is replaced.
type word struct {
	from, to []byte
	// borders[n] is the length of the longest text that both begins and ends the first n+1 bytes of from (Knuth, Morris, Pratt).
	borders []int
	begun   int // how much of from the text ends with, less than all of it
	next    int // where it stands in the text next; -1 for nowhere
}

func newWord(from, to string) *word {
	w := &word{from: []byte(from), to: []byte(to), borders: make([]int, len(from))}
	n := 0
	for i := 1; i < len(w.from); i++ {
		n = w.follow(n, w.from[i])
		w.borders[i] = n
	}
	return w
}

// follow is how much of the word a text ends with that ended with n bytes of it, after one more byte.
func (w *word) follow(n int, c byte) int {
	for n == len(w.from) || n > 0 && w.from[n] != c {
		n = w.borders[n-1]
	}
	if w.from[n] == c {
		n++
	}
	return n
}

// measure finds begun.
func (w *word) measure(text []byte) {
	w.begun = 0
	for _, c := range text[max(0, len(text)-len(w.from)+1):] {
		w.begun = w.follow(w.begun, c)
	}
}

// redactor replaces words in a stream.
type redactor struct {
	src   io.ReadCloser
	words []*word // the longest first
	chunk []byte
	// harmless is how much of a word is not held back.
	harmless int

	text  []byte // what is not decided yet
	given int    // so much of its beginning was passed on all the same
	ready []byte // to be read
	store []byte // ready's memory
	err   error  // what comes after ready
}

// Close ends the response.
func (r *redactor) Close() error { return r.src.Close() }

func (r *redactor) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		var n int
		n, r.err = r.src.Read(r.chunk)
		r.text = append(r.text, r.chunk[:n]...)
		r.decide(r.err != nil)
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// decide makes ready what can be: all up to where a word may have begun; with last, all.
func (r *redactor) decide(last bool) {
	r.store = r.store[:0]
	for _, w := range r.words {
		w.measure(r.text)
		w.next = bytes.Index(r.text, w.from)
	}
	at := 0
	hold := r.hold(at, last)
	for {
		w := r.first()
		if w == nil || w.next >= hold {
			break
		}
		r.give(at, w.next)
		r.store = append(r.store, w.to...)
		at = w.next + len(w.from)
		r.given = max(r.given, at)
		r.advance(at)
		hold = r.hold(at, last)
	}
	r.give(at, hold)
	if len(r.text)-hold <= r.harmless {
		r.give(hold, len(r.text))
	}
	r.text = append(r.text[:0], r.text[hold:]...)
	r.given = max(0, r.given-hold)
	r.ready = r.store
}

// hold is where, from at on, a word may begin whose end is not there yet.
func (r *redactor) hold(at int, last bool) int {
	hold := len(r.text)
	if last {
		return hold
	}
	for _, w := range r.words {
		n := w.begun
		for n > 0 && len(r.text)-n < at {
			n = w.borders[n-1]
		}
		hold = min(hold, len(r.text)-n)
	}
	return hold
}

// first is the word that stands first in the text, and of several there the longest.
func (r *redactor) first() *word {
	var best *word
	for _, w := range r.words {
		if w.next >= 0 && (best == nil || w.next < best.next) {
			best = w
		}
	}
	return best
}

// advance finds the words anew that stood before at.
func (r *redactor) advance(at int) {
	for _, w := range r.words {
		if w.next >= 0 && w.next < at {
			if w.next = bytes.Index(r.text[at:], w.from); w.next >= 0 {
				w.next += at
			}
		}
	}
}

// give makes a part of the text ready, as far as it has not gone already.
func (r *redactor) give(from, to int) {
	if from = max(from, r.given); from < to {
		r.store = append(r.store, r.text[from:to]...)
		r.given = to
	}
}
