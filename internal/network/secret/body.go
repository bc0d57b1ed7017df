package secret

import (
	"bytes"
	"io"
)

// Body passes a request's body on. Values are never put into bodies: a placeholder in one, wherever it goes, ends the reading
// with a *Misuse. What came before it may have gone already.
func (s *Set) Body(_ string, r io.Reader) io.Reader {
	if s == nil || len(s.list) == 0 || r == nil {
		return r
	}
	return &body{set: s, src: r}
}

// body looks for placeholders in what it passes on.
type body struct {
	set *Set
	src io.Reader
	// The end of what was passed on, in which a placeholder may begin, with room for as much of what follows.
	border []byte
	err    error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	if one := b.look(p[:n]); one != nil {
		b.err = &Misuse{one.Name, "body", "values are put into headers only"}
		return 0, b.err
	}
	b.err = err
	return n, err
}

// look finds a placeholder in a piece, or across its beginning.
func (b *body) look(piece []byte) *Secret {
	most := b.set.longest - 1
	tail := len(b.border)
	b.border = append(b.border, piece[:min(len(piece), most)]...)
	for i := range b.set.list {
		text := []byte(b.set.list[i].Placeholder)
		if tail > 0 && bytes.Contains(b.border, text) || bytes.Contains(piece, text) {
			return &b.set.list[i]
		}
	}
	end := b.border
	if len(piece) >= most {
		end = piece
	}
	b.border = append(b.border[:0], end[max(0, len(end)-most):]...)
	return nil
}
