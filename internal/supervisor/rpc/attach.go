package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// knowsProcesses refuses what the supervisor is too old for.
func (c *Client) knowsProcesses() error {
	if c.hello.ProtocolMax < protocolProcesses {
		return errdefs.Unavailable.Errorf("the VM %s was started by smolvm %s, which has no terminals and keeps no commands", c.hello.ID, c.hello.Build).
			WithRemedy("smolvm stop %s && smolvm start %s", c.hello.ID, c.hello.ID)
	}
	return nil
}

// processCall makes a call about processes.
func processCall[Res any](ctx context.Context, c *Client, route string, req any) (Res, error) {
	if err := c.knowsProcesses(); err != nil {
		var none Res
		return none, err
	}
	return call[Res](ctx, c, route, req)
}

// Processes tells of the commands that run or are remembered, in the order of their start.
func (c *Client) Processes(ctx context.Context) ([]api.Process, error) {
	res, err := processCall[ProcessesResponse](ctx, c, RouteProcs, ProcessRequest{})
	return res.Processes, err
}

// Process tells of one command. It is named as in api.AttachRequest.
func (c *Client) Process(ctx context.Context, process string) (api.Process, error) {
	res, err := processCall[ProcessesResponse](ctx, c, RouteProcs, ProcessRequest{Process: process, One: true})
	if err == nil && len(res.Processes) != 1 {
		err = errdefs.Internal.Errorf("the supervisor answered with %d processes", len(res.Processes))
	}
	if err != nil {
		return api.Process{}, err
	}
	return res.Processes[0], nil
}

// Wait returns how a command ended, once it has.
func (c *Client) Wait(ctx context.Context, process string) (api.ExecResult, error) {
	return processCall[api.ExecResult](ctx, c, RouteWait, ProcessRequest{Process: process})
}

// Keep lets a command outlive the client that started it.
func (c *Client) Keep(ctx context.Context, process string) error {
	_, err := processCall[Nothing](ctx, c, RouteKeep, ProcessRequest{Process: process})
	return err
}

// Resize tells a command's terminal its size.
func (c *Client) Resize(ctx context.Context, process string, size api.TerminalSize) error {
	_, err := processCall[Nothing](ctx, c, RouteResize, ResizeRequest{Process: process, TerminalSize: size})
	return err
}

// AttachIO joins a caller to a command. Of ExecIO, Stdin is read only when AttachRequest.Stdin, and Started is not called.
type AttachIO struct {
	ExecIO
	Began func(api.Process) // may be nil
	Gap   func(uint64)      // so many bytes of output are gone; may be nil
}

// Attach passes a command's output on: what is kept of it from an offset on, and unless NoFollow what comes until its end.
// Cancelling ctx leaves the command alone.
func (c *Client) Attach(ctx context.Context, req api.AttachRequest, streams AttachIO) (api.AttachResult, error) {
	if err := c.knowsProcesses(); err != nil {
		return api.AttachResult{}, err
	}
	in := streams.Stdin
	if !req.Stdin {
		in = nil
	}
	res := api.AttachResult{Offset: req.Offset}
	err := c.duplex(ctx, RouteAttach, req, in, func(ctx context.Context, r io.Reader) error {
		return c.receiveAttached(ctx, r, streams, &res)
	})
	return res, err
}

func (c *Client) receiveAttached(ctx context.Context, r io.Reader, streams AttachIO, res *api.AttachResult) error {
	buf := make([]byte, chunkSize)
	for {
		kind, p, err := readFrame(r, buf)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return lost(ctx, err)
		}
		switch kind {
		case frameBegin:
			err = c.began(ctx, p, streams)
		case frameStdout:
			res.Offset += uint64(len(p))
			err = deliver(streams.Stdout, p)
		case frameStderr:
			res.Offset += uint64(len(p))
			err = deliver(streams.Stderr, p)
		case frameGap:
			var gone uint64
			err = json.Unmarshal(p, &gone)
			res.Offset += gone
			if streams.Gap != nil {
				streams.Gap(gone)
			}
		case frameExit:
			var end api.AttachResult
			err := json.Unmarshal(p, &end)
			res.Result = end.Result
			return err
		case frameProblem:
			var problem errdefs.Problem
			if err := json.Unmarshal(p, &problem); err != nil {
				return err
			}
			return problem.Err()
		}
		if err != nil {
			return err
		}
	}
}

func (c *Client) began(ctx context.Context, p []byte, streams AttachIO) error {
	var info api.Process
	if err := json.Unmarshal(p, &info); err != nil {
		return err
	}
	if streams.Began != nil {
		streams.Began(info)
	}
	c.pass(ctx, info.ExecID, streams.ExecIO)
	return nil
}

// HandleAttach adds the answer to attach. The function calls Began first.
func (s *Server) HandleAttach(f func(context.Context, api.AttachRequest, AttachIO) (*api.ExecResult, error)) {
	s.route("POST "+RouteAttach, func(w http.ResponseWriter, r *http.Request) error {
		in := bufio.NewReaderSize(r.Body, chunkSize)
		var req api.AttachRequest
		if err := readStart(in, &req); err != nil {
			return errdefs.Invalid.Errorf("the request is malformed: %w", err)
		}
		out := &execWriter{w: w, rc: http.NewResponseController(w)}
		res, err := f(r.Context(), req, AttachIO{
			ExecIO: ExecIO{Stdin: in, Stdout: streamWriter{out, frameStdout}, Stderr: streamWriter{out, frameStderr}},
			Began:  func(p api.Process) { _ = out.sendJSON(frameBegin, p) },
			Gap:    func(n uint64) { _ = out.sendJSON(frameGap, n) },
		})
		switch {
		case err == nil:
			_ = out.sendJSON(frameExit, api.AttachResult{Result: res})
		case !out.begun:
			return err
		default:
			_ = out.sendJSON(frameProblem, errdefs.ToProblem(err))
		}
		return nil
	})
}
