// Package ext4 makes a read-only ext4 file system out of a tar, without a mount, a loop device or root.
//
// Layer: below image. It imports errdefs.
package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"

	"github.com/smolvm/smolvm/errdefs"
)

// MaxBytes is the largest file system that Convert makes unless told less.
const MaxBytes = 16 << 30

// Convert reads a tar and writes it to f, which is empty, as an ext4 of at most max bytes (0 = MaxBytes). The file
// system has no journal and no free space: it can only be mounted read-only. When ctx ends, so does the conversion.
func Convert(ctx context.Context, tar io.Reader, f *os.File, max int64) error {
	if max <= 0 || max > MaxBytes {
		max = MaxBytes
	}
	// Each file's head costs the converter memory however small the file is, so the stream is bounded too.
	in := &reader{ctx: ctx, r: tar, left: max + max/8 + 1<<20}
	err := convert(in, f, max)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case in.failed != nil:
		return in.failed
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errdefs.Exhausted.Errorf("no space left for a file system in %s: %w", f.Name(), err).
			WithRemedy("make room: df -h %s", filepath.Dir(filepath.Dir(f.Name())))
	}
	return errdefs.Image.Errorf("make an ext4 file system of a tar: %w", err)
}

// convert keeps a panic of the converter, which trusts its input's headers, from ending the process.
func convert(in io.Reader, f *os.File, max int64) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed tar: %v", p)
		}
	}()
	return tar2ext4.Convert(in, &eager{File: f}, tar2ext4.MaximumDiskSize(max))
}

// reader bounds a stream and ends it with its context. It keeps the source's error, which the converter wraps away.
type reader struct {
	ctx    context.Context //nolint:containedctx // an io.Reader has no other way to take one
	r      io.Reader
	left   int64
	failed error
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.left <= 0 {
		return 0, errors.New("larger than the file system may be")
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.failed = err
	}
	return n, err
}
