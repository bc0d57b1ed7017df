package agent

import (
	"context"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/internal/guest/proto"
)

// environ is a System that others than our commands get the environment of.
type environ interface{ EnvironmentChanged() error }

// SetEnvironment replaces the environment of Configure. When it answers, logins have the new one too.
func (a *Agent) SetEnvironment(_ context.Context, req *connect.Request[proto.SetEnvironmentRequest]) (*connect.Response[proto.SetEnvironmentResponse], error) {
	a.mu.Lock()
	runner := a.runner
	a.mu.Unlock()
	a.environ.Lock() // not mu: other calls do not wait for a service
	defer a.environ.Unlock()
	former := runner.SetEnv(req.Msg.GetEnv())
	if s, ok := a.opts.System.(environ); ok {
		if err := s.EnvironmentChanged(); err != nil {
			runner.SetEnv(former)
			return nil, internal(err)
		}
	}
	return connect.NewResponse(&proto.SetEnvironmentResponse{}), nil
}
