package rpc

import (
	"fmt"
	"net/http"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// The protocols of the control socket that this build speaks.
const (
	ProtocolMin = 1
	ProtocolMax = 5

	protocolProcesses = 2 // the first with terminals, and with commands that others attach to
	protocolPorts     = 3 // the first with published ports
	protocolSettings  = 4 // the first whose environment, time to live and lease can be changed
	protocolSecrets   = 5 // the first whose VMs may have secrets
)

const (
	protocolHeader = "Smolvm-Protocol"
	maxCall        = 8 << 20 // of a call's JSON, both ways, but for exec
	maxListing     = 256 << 20
	maxProblem     = 1 << 20
	maxFrame       = 256 << 10
	streamWindow   = 4<<20 - 1
	inputWindow    = 1 << 20                       // of one stream; of all far more, so that input nobody reads holds up no signal
	maxStart       = 6*api.MaxScriptBytes + 16<<20 // JSON may need six bytes for one
	chunkSize      = 64 << 10
)

// Hello tells who is at the other end.
type Hello struct {
	ID          string `json:"id"`
	Build       string `json:"build"`
	ProtocolMin int    `json:"protocol_min"`
	ProtocolMax int    `json:"protocol_max"`
	PID         int    `json:"pid"`
}

func protocols() string { return fmt.Sprintf("%d-%d", ProtocolMin, ProtocolMax) }

// overlap refuses a peer that speaks none of our protocols.
func overlap(who string, low, high int) error {
	if low > ProtocolMax || high < ProtocolMin {
		return errdefs.Unavailable.Errorf("%s speaks protocols %d to %d, this smolvm %d to %d", who, low, high, ProtocolMin, ProtocolMax).
			WithRemedy("use the newer smolvm, or stop the VM and start it again")
	}
	return nil
}

func checkProtocols(r *http.Request) error {
	var low, high int
	if _, err := fmt.Sscanf(r.Header.Get(protocolHeader), "%d-%d", &low, &high); err != nil {
		return errdefs.Invalid.Errorf("the request names no protocols")
	}
	return overlap("the client", low, high)
}

// StopRequest asks a supervisor to end its VM.
type StopRequest struct {
	GraceMs int64 `json:"grace_ms"` // for the guest's orderly end
	Kill    bool  `json:"kill"`     // no orderly end
	Delete  bool  `json:"delete"`   // and delete the VM
}

// OwnerRequest changes who decides that the VM may go.
type OwnerRequest struct {
	Owner  api.Owner `json:"owner"`
	Client int       `json:"client,omitempty"` // pid, of owner client
	// LeaseMs is of owner lease; 0 = a minute.
	LeaseMs int64 `json:"lease_ms,omitempty"`
}

// TTLRequest says how long the VM may run from now on; 0 = as long as it likes.
type TTLRequest struct {
	TTLMs int64 `json:"ttl_ms"`
}

// EnvResponse is the environment of the VM's commands.
type EnvResponse struct {
	Env map[string]string `json:"env"`
}

// NetworkRequest changes the policy of the VM's network.
type NetworkRequest struct {
	Policy api.NetworkPolicy `json:"policy"`
}

// PortRequest publishes a port of the VM, or ends that.
type PortRequest struct {
	Port   api.Port `json:"port"`
	Remove bool     `json:"remove,omitempty"`
}

// WaitPortRequest asks to be told when something in the guest listens on a port.
type WaitPortRequest struct {
	Port int `json:"port"`
}

// SignalRequest sends a signal to a command.
type SignalRequest struct {
	ExecID string `json:"exec_id"`
	Signal int    `json:"signal"`
	Group  bool   `json:"group,omitempty"` // everything that it started
}

// ProcessRequest names a command. One is for listings: only that one.
type ProcessRequest struct {
	Process string `json:"process"`
	One     bool   `json:"one,omitempty"`
}

// ResizeRequest tells a command's terminal its size.
type ResizeRequest struct {
	Process string `json:"process"`
	api.TerminalSize
}

// ProcessesResponse is a listing of commands.
type ProcessesResponse struct {
	Processes []api.Process `json:"processes"`
}

// PathRequest is what calls about files carry; each uses what it needs.
type PathRequest struct {
	Path      string `json:"path"`
	To        string `json:"to,omitempty"`
	Mode      uint32 `json:"mode,omitempty"` // as in stat(2)
	Recursive bool   `json:"recursive,omitempty"`
	NoFollow  bool   `json:"no_follow,omitempty"`
}

// PingResponse tells how long the agent took.
type PingResponse struct {
	Micros int64 `json:"us"`
}

// ListResponse is a directory.
type ListResponse struct {
	Entries []api.FileInfo `json:"entries"`
}

// Nothing is the body of calls that say nothing.
type Nothing struct{}

// The routes of the calls.
const (
	RouteHello   = "/v1/hello"
	RouteExec    = "/v1/exec"
	RouteStart   = "/v1/start"
	RouteSignal  = "/v1/signal"
	RouteAttach  = "/v1/attach"
	RouteProcs   = "/v1/processes"
	RouteWait    = "/v1/wait"
	RouteKeep    = "/v1/keep"
	RouteResize  = "/v1/resize"
	RoutePing    = "/v1/ping"
	RouteSync    = "/v1/sync"
	RouteMetrics = "/v1/metrics"
	RouteFile    = "/v1/file"
	RouteTar     = "/v1/tar"
	RouteStat    = "/v1/stat"
	RouteList    = "/v1/list"
	RouteMkdir   = "/v1/mkdir"
	RouteRemove  = "/v1/remove"
	RouteRename  = "/v1/rename"
	RouteChmod   = "/v1/chmod"
	RoutePause   = "/v1/pause"
	RouteUnpause = "/v1/unpause"
	RouteStop    = "/v1/stop"
	RouteOwner   = "/v1/owner"
	RouteTTL     = "/v1/ttl"
	RouteEnv     = "/v1/env"
	RouteNetwork = "/v1/network"
	RoutePort    = "/v1/port"
	RouteSecrets = "/v1/secrets"

	RouteWaitPort = "/v1/port/wait"
)
