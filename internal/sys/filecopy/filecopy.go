// Package filecopy copies files that are large and mostly empty: the memory and the disks of machines.
//
// Layer: leaf. It imports none of ours.
package filecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// block is what is looked at at once; one of zeros becomes a hole.
const block = 64 << 10

// Clone makes to, which is empty, a file of from's content. Where the file system can share the blocks, it does that.
func Clone(ctx context.Context, to, from *os.File) error {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("clone %s: %w", from.Name(), err)
	}
	return Copy(ctx, to, from, nil)
}

// Copy makes to, which is empty, a file of from's content, with holes where there are only zeros. sum, if not nil, is given
// all of it, the zeros too.
func Copy(ctx context.Context, to, from *os.File, sum io.Writer) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	if err := to.Truncate(size); err != nil {
		return err
	}
	buf, zeros := make([]byte, block), make([]byte, block)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := nextData(from, at, size)
		for at < data && sum != nil {
			n := min(data-at, block)
			_, _ = sum.Write(zeros[:n])
			at += n
		}
		if at = data; at == size {
			break
		}
		n, err := from.ReadAt(buf[:min(size-at, block)], at)
		if n == 0 && err != nil {
			return fmt.Errorf("read %s: %w", from.Name(), noEOF(err))
		}
		if sum != nil {
			_, _ = sum.Write(buf[:n])
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := to.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return nil
}

// nextData is where the next block that is no hole begins, at or behind at. Where the file system tells of none, it is at.
func nextData(f *os.File, at, size int64) int64 {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size
	case err != nil || data < at || data > size:
		return at
	}
	return data
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // it became shorter meanwhile
	}
	return err
}
