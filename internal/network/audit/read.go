package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// maxLine bounds a line that is read.
const maxLine = 64 << 10

// Reader reads a record while it is written. It is for one goroutine.
type Reader struct {
	dir  string
	f    *os.File
	rest []byte // the beginning of a line
}

// NewReader reads the record in dir, from the oldest kept line on.
func NewReader(dir string) *Reader { return &Reader{dir: dir} }

// Close ends the reader.
func (r *Reader) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// Each calls each with every record that came since the last call, until it fails. Without a record there is none.
func (r *Reader) Each(each func(api.NetRecord) error) error {
	if r.f == nil {
		if err := r.begin(each); err != nil {
			return err
		}
	}
	for r.f != nil {
		if err := r.drain(r.f, each); err != nil {
			return err
		}
		next, err := openFile(r.dir, File)
		if err != nil {
			return err
		}
		if next == nil || same(next, r.f) {
			if next != nil {
				_ = next.Close()
			}
			return nil
		}
		// The one that we have became the former one, and is complete: what came in between is read once more.
		err = r.drain(r.f, each)
		_ = r.f.Close()
		r.f, r.rest = next, nil
		if err != nil {
			return err
		}
	}
	return nil
}

// begin reads the former file and opens the present one, in an order in which a change between them loses nothing.
func (r *Reader) begin(each func(api.NetRecord) error) error {
	f, err := openFile(r.dir, File)
	if err != nil {
		return err
	}
	former, err := openFile(r.dir, Former)
	switch {
	case err != nil || former == nil:
	case f == nil || same(f, former): // the present one is not there yet: Each finds it
		f, former = former, f
	default:
		err = r.drain(former, each)
	}
	if former != nil {
		_ = former.Close()
	}
	r.f, r.rest = f, nil
	return err
}

func openFile(dir, name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errdefs.Host.Errorf("read the network's record: %w", err)
	}
	return f, nil
}

func same(a, b *os.File) bool {
	x, xerr := a.Stat()
	y, yerr := b.Stat()
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

// drain reads to the end. Lines that are no records are left out.
func (r *Reader) drain(f *os.File, each func(api.NetRecord) error) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		for chunk := buf[:n]; len(chunk) > 0; {
			line, rest, whole := bytes.Cut(chunk, []byte{'\n'})
			chunk = rest
			if len(r.rest)+len(line) <= maxLine {
				r.rest = append(r.rest, line...)
			}
			if !whole {
				break
			}
			var rec api.NetRecord
			ok := json.Unmarshal(r.rest, &rec) == nil && rec.Kind != ""
			r.rest = r.rest[:0]
			if !ok {
				continue
			}
			if err := each(rec); err != nil {
				return err
			}
		}
		if err == io.EOF { //nolint:errorlint // the file's own
			return nil
		}
		if err != nil {
			return errdefs.Host.Errorf("read the network's record: %w", err)
		}
	}
}
