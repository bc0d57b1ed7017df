// Package audit keeps the record of a VM's network: what it asked, what it reached, what was refused. Two files hold the
// newest records, a line of JSON each; when the first is full, it takes the place of the second.
//
// Layer: part of network, below supervisor and lifecycle. It may import api, errdefs, internal/sys.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
)

// File is the record's name in the VM's directory; Former is what came before it.
const (
	File   = "audit.jsonl"
	Former = "audit.1.jsonl"
)

// Kinds of records: KindDropped says how many were dropped before it, KindHTTP is a request.
const (
	KindDropped = "dropped"
	KindHTTP    = "http"
)

// Limits of a record: of each of the two files, of the queue, of what goes out in one write, of a text in a record, of what a
// request adds to it.
const (
	maxFile  = 8 << 20
	maxQueue = 4096
	maxBatch = 64 << 10
	maxText  = 512
	// Of a request: its path, how many secrets were put into it, and a secret's name. A reader takes lines of 64 KiB.
	maxPath       = 1024
	maxSecrets    = 16
	maxSecretName = 128
)

// Writer adds to the record. It is safe for concurrent use.
type Writer struct {
	dir     string
	limit   int64
	queue   chan api.NetRecord
	dropped atomic.Int64 // since Open
	untold  atomic.Int64 // of these, no record tells yet

	mu     sync.Mutex
	closed bool
	done   chan struct{}

	// What the one goroutine writes with.
	f    *os.File // nil when there is none: it is tried again
	size int64
}

// Open goes on with the record in dir, or begins it.
func Open(dir string) (*Writer, error) { return open(dir, maxFile, maxQueue) }

func open(dir string, limit int64, queue int) (*Writer, error) {
	w := &Writer{dir: dir, limit: limit, queue: make(chan api.NetRecord, queue), done: make(chan struct{})}
	if err := w.reopen(); err != nil {
		return nil, errdefs.Host.Errorf("open the network's record: %w", err)
	}
	go w.run()
	return w, nil
}

// Add adds a record. It never blocks: what comes too fast, or does not fit on the disk, is dropped and counted.
func (w *Writer) Add(r api.NetRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		w.drop(1)
		return
	}
	select {
	case w.queue <- r:
	default:
		w.drop(1)
	}
}

// Drop counts records that were dropped before they could be added.
func (w *Writer) Drop(n int64) { w.drop(n) }

func (w *Writer) drop(n int64) {
	w.dropped.Add(n)
	w.untold.Add(n)
}

// Dropped is how many records were dropped since Open.
func (w *Writer) Dropped() int64 { return w.dropped.Load() }

// Close writes what was added and ends the writer.
func (w *Writer) Close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.done
	return nil
}

// run writes what comes, as much at once as there is.
func (w *Writer) run() {
	defer close(w.done)
	defer func() {
		if w.f != nil {
			_ = w.f.Close()
		}
	}()
	for r := range w.queue {
		batch, n := appendRecord(nil, r), int64(1)
		for more := true; more && len(batch) < maxBatch; {
			select {
			case r, more = <-w.queue:
				if more {
					batch, n = appendRecord(batch, r), n+1
				}
			default:
				more = false
			}
		}
		w.write(batch, n)
	}
	if w.untold.Load() > 0 {
		w.write(nil, 0)
	}
}

// write adds lines, and behind them how many were dropped.
func (w *Writer) write(lines []byte, n int64) {
	untold := w.untold.Load()
	if untold > 0 {
		lines = appendRecord(lines, api.NetRecord{Time: time.Now().UTC(), Kind: KindDropped, Count: untold})
	}
	if err := w.put(lines); err != nil {
		w.drop(n)
		return
	}
	w.untold.Add(-untold)
}

func (w *Writer) put(lines []byte) error {
	if w.f != nil && w.size+int64(len(lines)) > w.limit && w.size > 0 {
		_ = w.f.Close()
		w.f = nil
		if err := os.Rename(filepath.Join(w.dir, File), filepath.Join(w.dir, Former)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if w.f == nil {
		if err := w.reopen(); err != nil {
			return err
		}
		if w.size+int64(len(lines)) > w.limit && w.size > 0 {
			return errdefs.Host.Errorf("the former record is in the way")
		}
	}
	n, err := w.f.WriteAt(lines, w.size)
	if err != nil {
		if n > 0 { // no half line stays
			_ = w.f.Truncate(w.size)
		}
		return err
	}
	w.size += int64(n)
	return nil
}

// reopen goes on with the file. A last line without an end is of a writer that died: it goes.
func (w *Writer) reopen() error {
	f, err := os.OpenFile(filepath.Join(w.dir, File), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	size, err := whole(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	w.f, w.size = f, size
	return nil
}

// whole is where the last line of a file ends.
func whole(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, maxBatch)
	for end := st.Size(); end > 0; {
		start := max(0, end-maxBatch)
		chunk := buf[:end-start]
		if _, err := f.ReadAt(chunk, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(chunk, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// appendRecord adds a line. Texts come from a hostile guest: they have a limit, and JSON escapes them.
func appendRecord(to []byte, r api.NetRecord) []byte {
	for _, text := range []*string{&r.Kind, &r.Name, &r.Addr, &r.Proto, &r.QType, &r.Verdict, &r.Rule, &r.Reason, &r.Method, &r.HTTPVersion} {
		*text = excerpt.Cut(*text, maxText)
	}
	r.Path = excerpt.Cut(r.Path, maxPath)
	r.Secrets = slices.Clone(r.Secrets[:min(len(r.Secrets), maxSecrets)])
	for i, name := range r.Secrets {
		r.Secrets[i] = excerpt.Cut(name, maxSecretName)
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	r.Time = r.Time.UTC()
	b, err := json.Marshal(r)
	if err != nil { // a time beyond the year 9999
		r.Time = time.Now().UTC()
		b, _ = json.Marshal(r)
	}
	return append(append(to, b...), '\n')
}
