// Package document reads YAML files of people's, no larger and no deeper than a parser of YAML can bear.
//
// Layer: part of the front cli. It may import errdefs.
package document

import (
	"bytes"
	"io"

	"github.com/smolvm/smolvm/errdefs"
)

// maxDepth bounds what lies in one another on a line. Ours have four levels, and goccy/go-yaml takes minutes and gigabytes for
// a megabyte of opening brackets.
const maxDepth = 64

// Read reads a file of at most so many bytes.
func Read(r io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > most:
		return nil, errdefs.Invalid.Errorf("it has more than %d bytes", most)
	}
	depth, line := 0, 1
	for row := range bytes.SplitSeq(b, []byte("\n")) {
		if depth = max(0, depth+opened(row)); depth > maxDepth || marks(row) > maxDepth {
			return nil, errdefs.Invalid.Errorf("line %d: it is nested deeper than %d times", line, maxDepth)
		}
		line++
	}
	return b, nil
}

// opened counts the brackets that a line opens and does not close; the most of them that are open at once, if it is one that
// goes too deep.
func opened(row []byte) int {
	n := 0
	for _, c := range row {
		switch c {
		case '[', '{':
			n++
		case ']', '}':
			n--
		}
		if n > maxDepth {
			return n
		}
	}
	return n
}

// marks counts the lists and keys that begin on a line in one another: "- - ? -".
func marks(row []byte) int {
	n := 0
	for len(row) > 0 && bytes.IndexByte([]byte(" \t-?"), row[0]) >= 0 {
		if row[0] == '-' || row[0] == '?' {
			n++
		}
		row = row[1:]
	}
	return n
}
