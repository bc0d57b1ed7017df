package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/internal/guest/agent/files"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// codeOf maps a file's error to the protocol's code and, for bulk routes, to an error class's name and HTTP status.
func codeOf(err error) (code connect.Code, class string, status int) {
	switch {
	case errors.Is(err, files.ErrPath), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL),
		errors.Is(err, syscall.ELOOP):
		return connect.CodeInvalidArgument, "invalid", 400
	case errors.Is(err, fs.ErrNotExist):
		return connect.CodeNotFound, "not_found", 404
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.EBUSY):
		return connect.CodeInvalidArgument, "invalid", 400
	case errors.Is(err, fs.ErrExist):
		return connect.CodeAlreadyExists, "already_exists", 409
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return connect.CodePermissionDenied, "denied", 403
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.ENOMEM):
		return connect.CodeResourceExhausted, "exhausted", 429
	}
	return connect.CodeInternal, "internal", 500
}

func fileError(err error) error {
	code, _, _ := codeOf(err)
	return connect.NewError(code, err)
}

// onPath calls f with the canonical path and answers with res.
func onPath[T any](path string, res *T, f func(path string) error) (*connect.Response[T], error) {
	clean, err := files.Clean(path)
	if err == nil {
		err = f(clean)
	}
	if err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(res), nil
}

// Stat describes a file.
func (a *Agent) Stat(_ context.Context, req *connect.Request[proto.StatRequest]) (*connect.Response[proto.StatResponse], error) {
	res := &proto.StatResponse{}
	return onPath(req.Msg.GetPath(), res, func(p string) (err error) {
		res.Info, err = files.Info(p, req.Msg.GetNoFollow())
		return err
	})
}

// List returns a page of a directory.
func (a *Agent) List(_ context.Context, req *connect.Request[proto.ListRequest]) (*connect.Response[proto.ListResponse], error) {
	res := &proto.ListResponse{}
	return onPath(req.Msg.GetPath(), res, func(p string) (err error) {
		res.Entries, res.More, err = files.List(p, req.Msg.GetAfter(), int(min(req.Msg.GetLimit(), proto.MaxList)))
		return err
	})
}

// Mkdir makes a directory.
func (a *Agent) Mkdir(_ context.Context, req *connect.Request[proto.MkdirRequest]) (*connect.Response[proto.MkdirResponse], error) {
	return onPath(req.Msg.GetPath(), &proto.MkdirResponse{}, func(p string) error {
		return files.Mkdir(p, req.Msg.GetMode(), req.Msg.GetParents())
	})
}

// Remove removes a file or directory.
func (a *Agent) Remove(_ context.Context, req *connect.Request[proto.RemoveRequest]) (*connect.Response[proto.RemoveResponse], error) {
	return onPath(req.Msg.GetPath(), &proto.RemoveResponse{}, func(p string) error {
		return files.Remove(p, req.Msg.GetRecursive())
	})
}

// Rename moves a file.
func (a *Agent) Rename(_ context.Context, req *connect.Request[proto.RenameRequest]) (*connect.Response[proto.RenameResponse], error) {
	return onPath(req.Msg.GetFrom(), &proto.RenameResponse{}, func(from string) error {
		to, err := files.Clean(req.Msg.GetTo())
		if err != nil {
			return err
		}
		return os.Rename(from, to)
	})
}

// Chmod sets a file's permission bits.
func (a *Agent) Chmod(_ context.Context, req *connect.Request[proto.ChmodRequest]) (*connect.Response[proto.ChmodResponse], error) {
	return onPath(req.Msg.GetPath(), &proto.ChmodResponse{}, func(p string) error {
		return files.Chmod(p, req.Msg.GetMode())
	})
}
