package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"syscall"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/fault"
)

// ExecIO joins a command to its caller's streams. Nil writers discard.
type ExecIO struct {
	// Stdin is read only when ExecRequest.Stdin. A Read that does not return is left behind when the command ends.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Started is called once the command runs; may be nil.
	Started func(api.ProcessInfo)
	// Signals are sent to the command; may be nil.
	Signals <-chan os.Signal
	// Sizes are those of its terminal from now on; may be nil.
	Sizes <-chan api.TerminalSize
}

// Exec runs a command and returns how it ended. Cancelling ctx drops the command (it is killed when its OnDisconnect says
// so). An error means that SmolVM failed; a command that fails or cannot be started is a result.
func (c *Client) Exec(ctx context.Context, req api.ExecRequest, streams ExecIO) (api.ExecResult, error) {
	if err := req.Validate(); err != nil {
		return api.ExecResult{}, err
	}
	if req.TTY != nil || req.Shell {
		if err := c.knowsProcesses(); err != nil {
			return api.ExecResult{}, err
		}
	}
	var res api.ExecResult
	in := streams.Stdin
	if !req.Stdin {
		in = nil
	}
	err := c.duplex(ctx, RouteExec, req, in, func(ctx context.Context, r io.Reader) (err error) {
		res, err = c.receive(ctx, r, streams)
		return err
	})
	return res, err
}

// duplex sends a request and what is read from in, if that is not nil, and has the answer read meanwhile.
func (c *Client) duplex(ctx context.Context, route string, req any, in io.Reader, receive func(context.Context, io.Reader) error) error {
	start, err := startFrame(req)
	if err != nil {
		return errdefs.Internal.Errorf("ask the supervisor: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // drops the stream on every way out
	var body io.Reader = bytes.NewReader(start)
	var stdin *source
	if in != nil {
		stdin = newSource(in)
		defer func() { _ = stdin.Close() }()
		// The transport does not look at ctx while it waits for the body.
		defer context.AfterFunc(ctx, func() { _ = stdin.Close() })()
		body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(body, stdin), stdin}
	}
	answer, err := c.do(ctx, http.MethodPost, route, body)
	if err != nil {
		return inputError(stdin, err)
	}
	defer func() { _ = answer.Close() }()
	return inputError(stdin, receive(ctx, bufio.NewReaderSize(answer, chunkSize)))
}

// inputError puts the blame on the caller's reader where it belongs.
func inputError(stdin *source, err error) error {
	if err == nil || stdin == nil {
		return err
	}
	if rerr := stdin.failure(); rerr != nil {
		return errdefs.Invalid.Errorf("read the command's input: %w", rerr)
	}
	return err
}

// receive passes output on until the command's end.
func (c *Client) receive(ctx context.Context, r io.Reader, streams ExecIO) (api.ExecResult, error) {
	buf := make([]byte, chunkSize)
	for {
		kind, p, err := readFrame(r, buf)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return api.ExecResult{}, lost(ctx, err)
		}
		switch kind {
		case frameStarted:
			err = c.started(ctx, p, streams)
		case frameStdout:
			err = deliver(streams.Stdout, p)
		case frameStderr:
			err = deliver(streams.Stderr, p)
		case frameExit:
			var res api.ExecResult
			err := json.Unmarshal(p, &res)
			return res, err
		case frameProblem:
			var problem errdefs.Problem
			if err := json.Unmarshal(p, &problem); err != nil {
				return api.ExecResult{}, err
			}
			return api.ExecResult{}, problem.Err()
		}
		if err != nil {
			return api.ExecResult{}, err
		}
	}
}

// started tells the caller, and from now on passes his signals on.
func (c *Client) started(ctx context.Context, p []byte, streams ExecIO) error {
	var info api.ProcessInfo
	if err := json.Unmarshal(p, &info); err != nil {
		return err
	}
	if streams.Started != nil {
		streams.Started(info)
	}
	fault.Point("exec.started")
	c.pass(ctx, info.ExecID, streams)
	return nil
}

// pass sends signals and sizes on as long as ctx lasts. What comes too late has nobody to hear it.
func (c *Client) pass(ctx context.Context, execID string, streams ExecIO) {
	if streams.Signals == nil && streams.Sizes == nil {
		return
	}
	signals, sizes := streams.Signals, streams.Sizes
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case sig, open := <-signals:
				if !open {
					signals = nil
				} else if n, ok := sig.(syscall.Signal); ok {
					_ = c.Signal(ctx, execID, int(n), false)
				}
			case size, open := <-sizes:
				if !open {
					sizes = nil
				} else {
					_ = c.Resize(ctx, execID, size)
				}
			}
		}
	}()
}

func deliver(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return errdefs.Host.Errorf("pass the command's output on: %w", err)
	}
	return nil
}

func startCall(ctx context.Context, c *Client, start []byte) (api.ProcessInfo, error) {
	var info api.ProcessInfo
	answer, err := c.do(ctx, http.MethodPost, RouteStart, bytes.NewReader(start))
	if err != nil {
		return info, err
	}
	defer func() { _ = answer.Close() }()
	if err := json.NewDecoder(io.LimitReader(answer, maxCall)).Decode(&info); err != nil {
		return info, lost(ctx, err)
	}
	return info, nil
}
