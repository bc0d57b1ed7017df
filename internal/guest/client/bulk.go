package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"

	"github.com/smolvm/smolvm/errdefs"
)

// maxProblem bounds the error that a guest answers with.
const maxProblem = 64 << 10

// request makes a bulk call. The caller closes the body of an answer without error; ending ctx drops it.
func (c *Client) request(ctx context.Context, method, route string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	what := "read from the guest"
	switch method {
	case http.MethodPut:
		what = "write to the guest"
	case http.MethodPost:
		what = "connect to the guest"
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+route+"?"+query.Encode(), body)
	if err != nil {
		return nil, errdefs.Invalid.Errorf("%s: %w", what, err)
	}
	res, err := c.http.RoundTrip(r)
	if err != nil {
		return nil, c.classify(ctx, what, err)
	}
	if res.StatusCode < http.StatusMultipleChoices {
		return &download{ReadCloser: res.Body, ctx: ctx, c: c}, nil
	}
	defer func() { _ = res.Body.Close() }()
	var p errdefs.Problem
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil {
		return nil, c.classify(ctx, what, err)
	}
	if err := json.Unmarshal(b, &p); err != nil || p.Message == "" {
		return nil, errdefs.Internal.Errorf("%s: it answered with status %d", what, res.StatusCode)
	}
	p.Message, p.Remedy = short(p.Message), ""
	return nil, p.Err()
}

// download gives a body's errors their class.
type download struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // the call's, which lasts as long as its body
	c   *Client
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is no clean end
		err = d.c.classify(d.ctx, "read from the guest", err)
	}
	return n, err
}

// ReadFile opens a regular file in the guest; length < 0 reads to the end. The stream ends with an error, never cleanly,
// when not all could be read. It lasts as long as ctx.
func (c *Client) ReadFile(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	q := url.Values{"path": {path}}
	if offset > 0 {
		q.Set("offset", strconv.FormatInt(offset, 10))
	}
	if length >= 0 {
		q.Set("length", strconv.FormatInt(length, 10))
	}
	return c.request(ctx, http.MethodGet, "/v1/file", q, nil)
}

// Attr is what a written file is to have; nil means as the file that it replaces, else root's and 0644.
type Attr struct {
	Mode     *uint32
	UID, GID *uint32
}

// WriteFile replaces a file in the guest by what r gives, in one step.
func (c *Client) WriteFile(ctx context.Context, path string, attr Attr, r io.Reader) error {
	q := url.Values{"path": {path}}
	for _, p := range []struct {
		name  string
		value *uint32
		base  int
	}{{"mode", attr.Mode, 8}, {"uid", attr.UID, 10}, {"gid", attr.GID, 10}} {
		if p.value != nil {
			q.Set(p.name, strconv.FormatUint(uint64(*p.value), p.base))
		}
	}
	return c.upload(ctx, "/v1/file", q, r)
}

// TarOut opens a tar of a file or directory in the guest; names are relative to the path's parent. It lasts as long as ctx.
func (c *Client) TarOut(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.request(ctx, http.MethodGet, "/v1/tar", url.Values{"path": {path}}, nil)
}

// TarIn unpacks a tar below a directory in the guest, which is made when absent.
func (c *Client) TarIn(ctx context.Context, dir string, r io.Reader) error {
	return c.upload(ctx, "/v1/tar", url.Values{"path": {dir}}, r)
}

func (c *Client) upload(ctx context.Context, route string, q url.Values, r io.Reader) error {
	// The wrapper keeps the transport from guessing a length, and remembers what the caller's reader said.
	src := &source{r: r}
	body, err := c.request(ctx, http.MethodPut, route, q, src)
	if rerr := src.err.Load(); rerr != nil {
		return errdefs.Invalid.Errorf("read what is to be written: %w", *rerr)
	}
	if err != nil {
		return err
	}
	return body.Close()
}

type source struct {
	r   io.Reader
	err atomic.Pointer[error] // the transport reads in a goroutine of its own
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers end with exactly that
		s.err.Store(&err)
	}
	return n, err
}
