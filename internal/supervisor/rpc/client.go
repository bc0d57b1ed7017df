// Package rpc is the protocol of a supervisor's control socket, both ends.
//
// Layer: between lifecycle and supervisor. It may import api, errdefs, sys.
package rpc

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// ExecIO joins a command to its caller's streams. Nil writers discard.
type ExecIO struct {
	Stdin          io.Reader // read only when ExecRequest.Stdin
	Stdout, Stderr io.Writer
	// Started is called once the command runs; may be nil.
	Started func(api.ProcessInfo)
	// Signals are sent to the command; may be nil.
	Signals <-chan os.Signal
}

// Client talks to one supervisor. It is safe for concurrent use.
type Client struct{}

var errTODO = errdefs.Internal.Errorf("not built yet")

// Close ends the connection; commands with on_disconnect kill that still run end with it.
func (c *Client) Close() error { return errTODO }

// Exec runs a command and returns how it ended. Cancelling ctx drops the command (it is killed when its OnDisconnect says
// so). An error means that SmolVM failed; a command that fails or cannot be started is a result.
func (c *Client) Exec(ctx context.Context, req api.ExecRequest, streams ExecIO) (api.ExecResult, error) {
	return api.ExecResult{}, errTODO
}

// StartDetached starts a command that outlives this client and returns once it runs; it has no stdin. With req.Main its
// output goes to the VM's output log.
func (c *Client) StartDetached(ctx context.Context, req api.ExecRequest) (api.ProcessInfo, error) {
	return api.ProcessInfo{}, errTODO
}

// Ping asks the agent for a sign of life and returns the time it took.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) { return 0, errTODO }

// ReadFile opens a regular file in the guest. length < 0 reads to the end.
func (c *Client) ReadFile(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	return nil, errTODO
}

// WriteFile replaces a file in the guest by what r gives, atomically. mode 0 = 0644, or that of the file that was there.
func (c *Client) WriteFile(ctx context.Context, path string, mode os.FileMode, r io.Reader) error {
	return errTODO
}

// TarOut opens a tar of a file or directory in the guest; names are relative to the path's parent.
func (c *Client) TarOut(ctx context.Context, path string) (io.ReadCloser, error) { return nil, errTODO }

// TarIn unpacks a tar below a directory in the guest.
func (c *Client) TarIn(ctx context.Context, path string, r io.Reader) error { return errTODO }

// Stat describes a file; a symlink is followed unless noFollow.
func (c *Client) Stat(ctx context.Context, path string, noFollow bool) (api.FileInfo, error) {
	return api.FileInfo{}, errTODO
}

// List returns a directory, sorted by name.
func (c *Client) List(ctx context.Context, path string) ([]api.FileInfo, error) { return nil, errTODO }

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, path string, mode os.FileMode, parents bool) error {
	return errTODO
}

// Remove removes a file or directory.
func (c *Client) Remove(ctx context.Context, path string, recursive bool) error { return errTODO }

// Rename moves a file.
func (c *Client) Rename(ctx context.Context, from, to string) error { return errTODO }

// Chmod sets a file's permission bits.
func (c *Client) Chmod(ctx context.Context, path string, mode os.FileMode) error { return errTODO }

// Sync writes the guest's file systems back.
func (c *Client) Sync(ctx context.Context) error { return errTODO }

// Metrics asks the guest for its figures.
func (c *Client) Metrics(ctx context.Context) (api.Metrics, error) { return api.Metrics{}, errTODO }
