package files

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

func (r Routes) registerContent(to huma.API) {
	op := operation("read-file", http.MethodGet, "/content", "Read a file", "It streams. One range is answered as one; several are not: such a request gets all.")
	web.Describe(&op, http.StatusOK, map[string]*huma.Schema{bytesType: web.Bytes("what is in it")})
	web.Describe(&op, http.StatusPartialContent, map[string]*huma.Schema{bytesType: web.Bytes("the range")})
	web.Raw(to, op, r.read)

	op = operation("write-file", http.MethodPut, "/content", "Write a file", "The body streams and may have any size. The file is replaced when all of it is there.")
	op.DefaultStatus = http.StatusNoContent
	op.RequestBody = web.Uploads(bytesType, "what shall be in it")
	web.Register(to, op, r.write)

	op = operation("read-tar", http.MethodGet, "/tar", "Read a file or directory as a tar", "Names begin with the last element of the path. What is in it is the guest's word: unpack it where names cannot lead out.")
	web.Describe(&op, http.StatusOK, map[string]*huma.Schema{tarType: web.Bytes("the tar")})
	web.Raw(to, op, r.readTar)

	op = operation("write-tar", http.MethodPut, "/tar", "Unpack a tar below a directory", "The body streams and may have any size.")
	op.DefaultStatus = http.StatusNoContent
	op.RequestBody = web.Uploads(tarType, "the tar")
	web.Register(to, op, r.writeTar)
}

func (r Routes) read(ctx context.Context, in *struct {
	Path
	Range string `header:"Range" doc:"bytes=FROM-TO" example:"bytes=0-1023"`
}, a *web.Answer,
) error {
	return r.on(ctx, in.VM, func(g Guest) error { return content(ctx, g, in.Path.Path, in.Range, a) }, in.Path.Path)
}

// content answers with what is in a file, or a range of it.
func content(ctx context.Context, g Guest, path, span string, a *web.Answer) error {
	info, err := g.Stat(ctx, path, false)
	if err != nil {
		return err
	}
	if info.Type != "file" {
		return errdefs.Invalid.Errorf("read %s: it is a %s and no file", path, info.Type)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if info.Size == 0 { // or one of those that the guest's kernel makes up as they are read
		f, err := g.ReadFile(ctx, path, 0, -1)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = io.Copy(a.Stream(bytesType), f)
		return err
	}
	if strings.Contains(span, ",") {
		span = ""
	}
	if span != "" && !satisfiable(span, info.Size) {
		p := web.NewProblem(errdefs.Invalid, "range: "+strconv.Quote(span)+" is none of a file of "+strconv.FormatInt(info.Size, 10)+" bytes")
		p.Status, p.Title = http.StatusRequestedRangeNotSatisfiable, http.StatusText(http.StatusRequestedRangeNotSatisfiable)
		return p
	}
	f := &remote{ctx: ctx, guest: g, path: path, size: info.Size}
	defer f.close()
	if err := f.open(); err != nil { // before the answer begins, so that it can tell
		return err
	}
	req, w := a.HTTP()
	req = req.Clone(ctx)
	req.Header.Del("Range")
	if span != "" {
		req.Header.Set("Range", span)
	}
	w.Header().Set("Content-Type", bytesType)
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, req, "", time.Time{}, f) // no time: the guest's clock and word would decide what is fresh
	if f.failed != nil {                          // the answer has begun: nothing is tried again
		return errdefs.Unavailable.Errorf("read %s: %s", path, f.failed.Error())
	}
	return nil
}

// satisfiable asks net/http, which would answer in words of its own.
func satisfiable(spec string, size int64) bool {
	w := &verdict{header: http.Header{}}
	req := &http.Request{Method: http.MethodHead, Header: http.Header{"Range": {spec}}}
	http.ServeContent(w, req, "x.bin", time.Time{}, io.NewSectionReader(nothing{}, 0, size))
	return w.status != http.StatusRequestedRangeNotSatisfiable
}

type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header         { return v.header }
func (v *verdict) WriteHeader(status int)      { v.status = status }
func (v *verdict) Write(b []byte) (int, error) { return len(b), nil }

// remote is a file in a guest, for http.ServeContent. It is opened where it is read.
type remote struct {
	ctx    context.Context // of the one request that it is made for
	guest  Content
	path   string
	size   int64
	at     int64
	from   int64
	r      io.ReadCloser
	failed error
}

// open opens it where Seek left it.
func (f *remote) open() error {
	r, err := f.guest.ReadFile(f.ctx, f.path, f.at, -1)
	if err != nil {
		return err
	}
	f.r, f.from = r, f.at
	return nil
}

func (f *remote) close() {
	if f.r != nil {
		_ = f.r.Close()
		f.r = nil
	}
}

// Read implements io.Reader.
func (f *remote) Read(b []byte) (int, error) {
	if f.r == nil || f.from != f.at {
		f.close()
		if err := f.open(); err != nil {
			f.failed = err
			return 0, err
		}
	}
	n, err := f.r.Read(b)
	f.at += int64(n)
	f.from = f.at
	if err != nil && !errors.Is(err, io.EOF) {
		f.failed = err
	}
	return n, err
}

// Seek implements io.Seeker.
func (f *remote) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, errdefs.Invalid.Errorf("range: before the file")
	}
	f.at = offset
	return offset, nil
}

func (r Routes) write(ctx context.Context, in *struct {
	Path
	Mode string `query:"mode" doc:"permission bits in octal; default 0644, or those of the file that was there" example:"0644" pattern:"^[0-7]{1,5}$"`
	web.Upload
},
) (*struct{}, error) {
	mode, err := octal(in.Mode, 0)
	if err != nil {
		return nil, err
	}
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.WriteFile(ctx, in.Path.Path, mode&os.ModePerm, in.Content) }, in.Path.Path)
}

func (r Routes) readTar(ctx context.Context, in *struct{ Path }, a *web.Answer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return r.on(ctx, in.VM, func(g Guest) error {
		t, err := g.TarOut(ctx, in.Path.Path)
		if err != nil {
			return err
		}
		defer func() { _ = t.Close() }()
		_, err = io.Copy(a.Stream(tarType), t)
		return err
	}, in.Path.Path)
}

func (r Routes) writeTar(ctx context.Context, in *struct {
	Path
	web.Upload
},
) (*struct{}, error) {
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.TarIn(ctx, in.Path.Path, in.Content) }, in.Path.Path)
}
