package cli_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path"

	"github.com/smolvm/smolvm/internal/sys/tarball"
)

// TarOut gives a directory, and, with $HOSTILE set, what no honest guest would put in.
func (g guest) TarOut(ctx context.Context, p string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(g.path(p))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	var b bytes.Buffer
	if _, err := tarball.Pack(ctx, &b, root, path.Base(p)); err != nil {
		return nil, err
	}
	if os.Getenv("HOSTILE") != "" {
		b.Truncate(b.Len() - 1024) // the end mark
		w := tar.NewWriter(&b)
		for _, name := range []string{"../evil\x1b[0m", path.Base(p) + "/../../evil", "/evil", "other/evil"} {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
				return nil, err
			}
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(&b), nil
}

func (g guest) TarIn(ctx context.Context, p string, r io.Reader) error {
	root, err := os.OpenRoot(g.path(p))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return tarball.Unpack(ctx, root, r, tarball.Unpacking{MaxBytes: 1 << 30})
}
