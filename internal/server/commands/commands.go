// Package commands holds the HTTP API's routes about what runs in a VM: commands that are run to their end, streams,
// processes that stay.
//
// Layer: part of the front server. It may import internal/server/web, lifecycle, api, errdefs.
package commands

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/web"
)

// Runner runs commands in a VM.
type Runner interface {
	Exec(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error)
	Signal(ctx context.Context, process string, signal int, group bool) error
}

// Routes adds the operations.
type Routes struct {
	// Connect returns the way into a running VM, and what gives it back.
	Connect func(ctx context.Context, id string) (Runner, func(), error)
}

const tag = "commands"

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	web.Register(to, huma.Operation{
		OperationID: "exec", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/exec", Tags: []string{tag}, MaxBodyBytes: 64 << 20,
		Summary: "Run a command to its end", Description: "A client that goes away has its command killed.",
	}, r.exec)
}

type execInput struct {
	web.VM
	Body api.CommandRequest
}

func (r Routes) exec(ctx context.Context, in *execInput) (*web.Body[api.CommandResult], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	req := in.Body
	if req.MaxOutputBytes < 0 || req.MaxOutputBytes > api.MaxOutputBytes {
		return nil, errdefs.Invalid.Errorf("max_output_bytes: %d is not within 1 to %d", req.MaxOutputBytes, api.MaxOutputBytes)
	}
	most := req.MaxOutputBytes
	if most == 0 {
		most = api.DefaultOutputBytes
	}
	runner, release, err := r.Connect(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	stdout, stderr := &capped{most: most}, &capped{most: most}
	streams := lifecycle.ExecIO{Stdout: stdout, Stderr: stderr}
	switch {
	case len(req.InputBase64) > 0:
		streams.Stdin = bytes.NewReader(req.InputBase64)
	case req.Input != "":
		streams.Stdin = strings.NewReader(req.Input)
	}
	req.Stdin = streams.Stdin != nil
	begun := time.Now()
	streams.Started = func(api.ProcessInfo) { begun = time.Now() }
	res, err := r.run(ctx, runner, req.ExecRequest, streams)
	if err != nil {
		return nil, err
	}
	out := api.CommandResult{
		ExecResult: res, Stdout: stdout.String(req.Base64), Stderr: stderr.String(req.Base64), StdoutTruncated: stdout.cut, StderrTruncated: stderr.cut,
		DurationMs: float64(time.Since(begun).Microseconds()) / 1000,
	}
	return &web.Body[api.CommandResult]{Body: out}, nil
}

// run keeps the command of a server that dies, and kills that of a client that goes.
func (r Routes) run(ctx context.Context, runner Runner, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
	req.OnDisconnect = api.DisconnectKeep
	var process string
	started := streams.Started
	streams.Started = func(p api.ProcessInfo) {
		process = p.ExecID
		if started != nil {
			started(p)
		}
	}
	res, err := runner.Exec(ctx, req, streams)
	if err != nil && ctx.Err() != nil && process != "" {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = runner.Signal(late, process, 9, true) // it may have ended
	}
	return res, err
}

// capped keeps the beginning of an output.
type capped struct {
	bytes.Buffer
	most int64
	cut  bool
}

func (c *capped) Write(p []byte) (int, error) {
	if room := c.most - int64(c.Len()); int64(len(p)) > room {
		c.cut = true
		c.Buffer.Write(p[:room])
		return len(p), nil
	}
	return c.Buffer.Write(p)
}

func (c *capped) String(encode bool) string {
	if encode {
		return base64.StdEncoding.EncodeToString(c.Bytes())
	}
	return strings.ToValidUTF8(c.Buffer.String(), "\uFFFD")
}
