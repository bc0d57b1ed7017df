// Package files holds the HTTP API's routes about a VM's files. All of them are the guest's: a path means nothing on this host.
//
// Layer: part of the front server. It may import internal/server/web, lifecycle, api, errdefs.
package files

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

// Content reads and writes what is in files.
type Content interface {
	ReadFile(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error)
	WriteFile(ctx context.Context, path string, mode os.FileMode, r io.Reader) error
	TarOut(ctx context.Context, path string) (io.ReadCloser, error)
	TarIn(ctx context.Context, path string, r io.Reader) error
}

// Tree tells what files there are and changes that.
type Tree interface {
	Stat(ctx context.Context, path string, noFollow bool) (api.FileInfo, error)
	List(ctx context.Context, path string) ([]api.FileInfo, error)
	Mkdir(ctx context.Context, path string, mode os.FileMode, parents bool) error
	Remove(ctx context.Context, path string, recursive bool) error
	Moves
}

// Moves gives files other names and modes.
type Moves interface {
	Rename(ctx context.Context, from, to string) error
	Chmod(ctx context.Context, path string, mode os.FileMode) error
}

// Guest is a VM's files.
type Guest interface {
	Content
	Tree
}

// Routes adds the operations.
type Routes struct {
	// On calls f with the way into a running VM.
	On func(ctx context.Context, id string, f func(Guest) error) error
}

const (
	tag       = "files"
	bytesType = "application/octet-stream"
	tarType   = "application/x-tar"
	base      = "/v1/sandboxes/{id}/files"
)

func operation(id, method, path, summary, description string) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: base + path, Tags: []string{tag}, Summary: summary, Description: description}
}

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	r.registerContent(to)
	web.Register(to, operation("stat-file", http.MethodGet, "/stat", "Describe a file", ""), r.stat)
	web.Register(to, operation("list-files", http.MethodGet, "/list", "List a directory", "Sorted by name."), r.list)
	web.Register(to, operation("delete-file", http.MethodDelete, "", "Remove a file or directory", ""), r.remove)
	op := operation("make-directory", http.MethodPost, "/mkdir", "Make a directory", "")
	op.DefaultStatus = http.StatusNoContent
	web.Register(to, op, r.mkdir)
	op = operation("move-file", http.MethodPost, "/move", "Give a file another name", "A file of that name is replaced.")
	op.DefaultStatus = http.StatusNoContent
	web.Register(to, op, r.move)
	op = operation("change-mode", http.MethodPost, "/chmod", "Set a file's permission bits", "")
	op.DefaultStatus = http.StatusNoContent
	web.Register(to, op, r.chmod)
}

// Path is what operations on one file have.
type Path struct {
	web.VM
	Path string `query:"path" required:"true" minLength:"1" maxLength:"4096" pattern:"^/" patternDescription:"an absolute path" example:"/root/out.txt" doc:"the absolute path in the VM"`
}

// on calls f with the way into the VM, and once more on a fresh connection where the supervisor saw nothing of the first call.
func (r Routes) on(ctx context.Context, vm web.VM, f func(Guest) error, paths ...string) error {
	if err := vm.Check(); err != nil {
		return err
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
			return errdefs.Invalid.Errorf("path: %q is not absolute, or has a NUL byte", p)
		}
	}
	return r.On(ctx, vm.ID, f)
}

func (r Routes) stat(ctx context.Context, in *struct {
	Path
	NoFollow bool `query:"no_follow" doc:"of a symlink, not of what it leads to"`
},
) (*web.Body[api.FileInfo], error) {
	var info api.FileInfo
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		info, err = g.Stat(ctx, in.Path.Path, in.NoFollow)
		return err
	}, in.Path.Path)
	return &web.Body[api.FileInfo]{Body: info}, err
}

// Directory is what is in one.
type Directory struct {
	Entries []api.FileInfo `json:"entries"`
}

func (r Routes) list(ctx context.Context, in *struct{ Path }) (*web.Body[Directory], error) {
	var entries []api.FileInfo
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		entries, err = g.List(ctx, in.Path.Path)
		return err
	}, in.Path.Path)
	return &web.Body[Directory]{Body: Directory{append([]api.FileInfo{}, entries...)}}, err
}

func (r Routes) remove(ctx context.Context, in *struct {
	Path
	Recursive bool `query:"recursive" doc:"a directory with all in it"`
},
) (*struct{}, error) {
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.Remove(ctx, in.Path.Path, in.Recursive) }, in.Path.Path)
}

// MkdirRequest says which directory to make.
type MkdirRequest struct {
	Path    string `json:"path" required:"true"`
	Mode    string `json:"mode,omitempty" doc:"in octal; default 0755" example:"0755" pattern:"^[0-7]{1,5}$"`
	Parents bool   `json:"parents,omitempty" doc:"those above it too; one that is there is no error"`
}

func (r Routes) mkdir(ctx context.Context, in *struct {
	web.VM
	Body MkdirRequest
},
) (*struct{}, error) {
	mode, err := octal(in.Body.Mode, 0o755)
	if err != nil {
		return nil, err
	}
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.Mkdir(ctx, in.Body.Path, mode, in.Body.Parents) }, in.Body.Path)
}

// MoveRequest gives a file another name.
type MoveRequest struct {
	From string `json:"from" required:"true"`
	To   string `json:"to" required:"true"`
}

func (r Routes) move(ctx context.Context, in *struct {
	web.VM
	Body MoveRequest
},
) (*struct{}, error) {
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.Rename(ctx, in.Body.From, in.Body.To) }, in.Body.From, in.Body.To)
}

// ChmodRequest sets a file's permission bits.
type ChmodRequest struct {
	Path string `json:"path" required:"true"`
	Mode string `json:"mode" required:"true" doc:"in octal" example:"0600" pattern:"^[0-7]{1,5}$"`
}

func (r Routes) chmod(ctx context.Context, in *struct {
	web.VM
	Body ChmodRequest
},
) (*struct{}, error) {
	mode, err := octal(in.Body.Mode, 0)
	if err != nil {
		return nil, err
	}
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.Chmod(ctx, in.Body.Path, mode) }, in.Body.Path)
}

// octal reads permission bits as chmod(1) has them, those above the nine too.
func octal(text string, otherwise os.FileMode) (os.FileMode, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 8, 16)
	if err != nil || n > 0o7777 {
		return 0, errdefs.Invalid.Errorf("mode: %q is not within 0 to 7777, in octal", text)
	}
	mode := os.FileMode(n & 0o777)
	for bit, m := range map[uint64]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if n&bit != 0 {
			mode |= m
		}
	}
	return mode, nil
}
