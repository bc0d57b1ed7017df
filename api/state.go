package api

// State is where a VM is in its life.
type State string

// The states of a VM. Which may follow which is decided by one table, in internal/store, through which every write of a state goes.
const (
	StateCreated    State = "created"
	StateStarting   State = "starting"
	StateRunning    State = "running"
	StatePaused     State = "paused"
	StateStopping   State = "stopping"
	StateStopped    State = "stopped"
	StateHibernated State = "hibernated"
	StateDeleting   State = "deleting"
	StateError      State = "error"
	// StateBroken is shown for a VM whose record cannot be read; it is never written.
	StateBroken State = "broken"
)

// States returns every state that a record can hold.
func States() []State {
	return []State{
		StateCreated, StateStarting, StateRunning, StatePaused, StateStopping, StateStopped, StateHibernated,
		StateDeleting, StateError,
	}
}

// Live reports whether a supervisor is expected to exist for the VM.
func (s State) Live() bool {
	switch s {
	case StateStarting, StateRunning, StatePaused, StateStopping:
		return true
	default:
		return false
	}
}

// Owner says who decides that a VM may go.
type Owner string

// The owner rules.
const (
	OwnerKeep   Owner = "keep"   // stays until it is removed
	OwnerClient Owner = "client" // stopped and deleted when the client's process is gone
	OwnerLease  Owner = "lease"  // stopped and deleted when nobody renewed it for too long
)
