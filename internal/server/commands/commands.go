// Package commands holds the HTTP API's routes about what runs in a VM: commands that are run to their end, streams,
// processes that stay.
//
// Layer: part of the front server. It may import internal/server/web, lifecycle, api, errdefs.
package commands

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"sync"
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
	StartDetached(ctx context.Context, req api.ExecRequest) (api.ProcessInfo, error)
	Signal(ctx context.Context, process string, signal int, group bool) error
	Resize(ctx context.Context, process string, size api.TerminalSize) error
}

// Viewer tells of the commands in a VM.
type Viewer interface {
	Processes(ctx context.Context) ([]api.Process, error)
	Process(ctx context.Context, process string) (api.Process, error)
	Wait(ctx context.Context, process string) (api.ExecResult, error)
	Attach(ctx context.Context, req api.AttachRequest, streams lifecycle.AttachIO) (api.AttachResult, error)
}

// Guest is the way into a running VM.
type Guest interface {
	Runner
	Viewer
}

// Routes adds the operations.
type Routes struct {
	// On calls f with the way into a running VM, and again where the first call of it was not sent.
	On func(ctx context.Context, id string, f func(Guest) error) error
	// Sockets counts the connections that the HTTP server does not know any more.
	Sockets *sync.WaitGroup
}

const (
	tag          = "commands"
	maxBodyBytes = 64 << 20 // a script of 16 MiB in JSON, or as much input
)

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	web.Register(to, huma.Operation{
		OperationID: "exec", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/exec", Tags: []string{tag}, MaxBodyBytes: maxBodyBytes,
		Summary: "Run a command to its end", Description: "A client that goes away has its command killed, with all that it started.",
	}, r.exec)
	r.registerStreams(to)
	r.registerProcesses(to)
}

// on calls f with the way into a VM.
func (r Routes) on(ctx context.Context, vm web.VM, f func(Guest) error) error {
	if err := vm.Check(); err != nil {
		return err
	}
	return r.On(ctx, vm.ID, f)
}

type execInput struct {
	web.VM
	Body api.CommandRequest
}

// check refuses what no guest needs to be asked about, and returns how much of an output is kept.
func (in *execInput) check() (most int64, err error) {
	if err := in.Check(); err != nil {
		return 0, err
	}
	most = in.Body.MaxOutputBytes
	if most < 0 || most > api.MaxOutputBytes {
		return 0, errdefs.Invalid.Errorf("max_output_bytes: %d is not within 1 to %d", most, api.MaxOutputBytes)
	}
	if most == 0 {
		most = api.DefaultOutputBytes
	}
	in.Body.Stdin = len(in.Body.InputBase64) > 0 || in.Body.Input != ""
	return most, in.Body.Validate()
}

// input is what the command reads.
func (in *execInput) input() io.Reader {
	if len(in.Body.InputBase64) > 0 {
		return bytes.NewReader(in.Body.InputBase64)
	}
	return strings.NewReader(in.Body.Input)
}

func (r Routes) exec(ctx context.Context, in *execInput) (*web.Body[api.CommandResult], error) {
	most, err := in.check()
	if err != nil {
		return nil, err
	}
	ctx, cancel := untilStopped(ctx, answerGrace)
	defer cancel()
	stdout, stderr := &capped{most: most}, &capped{most: most}
	asked := time.Now()
	begun := asked
	var res api.ExecResult
	err = r.on(ctx, in.VM, func(g Guest) (err error) {
		res, err = run(ctx, g, in.Body.ExecRequest, lifecycle.ExecIO{
			Stdin: in.input(), Stdout: stdout, Stderr: stderr, Started: func(api.ProcessInfo) { begun = time.Now() },
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	took := time.Since(begun)
	if inside := time.Duration(res.GuestMicros) * time.Microsecond; inside > took && inside <= time.Since(asked) {
		took = inside // the word of its start may be late; more than the whole call is no guest's to claim
	}
	out := api.CommandResult{
		ExecResult: res, Stdout: stdout.String(in.Body.Base64), Stderr: stderr.String(in.Body.Base64), StdoutTruncated: stdout.cut, StderrTruncated: stderr.cut,
		DurationMs: float64(took.Microseconds()) / 1000,
	}
	return &web.Body[api.CommandResult]{Body: out}, nil
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
