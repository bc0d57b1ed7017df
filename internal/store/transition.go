package store

import (
	"slices"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// transitions is the one table of what may follow what. Every write of a state passes through it.
//
// The way of an orderly end is stopping, then stopped. A live state may also become stopped at once: when a VM is found to
// have ended so, by its supervisor (the guest powered off) or by a later command (the host was restarted).
func transitions() map[api.State][]api.State {
	return map[api.State][]api.State{
		api.StateCreated:    {api.StateStarting, api.StateError, api.StateDeleting},
		api.StateStarting:   {api.StateRunning, api.StateStopping, api.StateStopped, api.StateError, api.StateDeleting},
		api.StateRunning:    {api.StatePaused, api.StateStopping, api.StateStopped, api.StateHibernated, api.StateError, api.StateDeleting},
		api.StatePaused:     {api.StateRunning, api.StateStopping, api.StateStopped, api.StateHibernated, api.StateError, api.StateDeleting},
		api.StateStopping:   {api.StateStopped, api.StateError, api.StateDeleting},
		api.StateStopped:    {api.StateStarting, api.StateError, api.StateDeleting},
		api.StateHibernated: {api.StateStarting, api.StateError, api.StateDeleting},
		api.StateError:      {api.StateStarting, api.StateError, api.StateDeleting},
		api.StateDeleting:   {api.StateError},
	}
}

// CanFollow refuses a step from one state to another that the table does not have.
func CanFollow(id string, from, to api.State) error {
	if slices.Contains(transitions()[from], to) {
		return nil
	}
	e := errdefs.WrongState.Errorf("the VM %s is %s: it cannot become %s", id, from, to)
	switch {
	case to == api.StateStarting && from.Live():
		return errdefs.WrongState.Errorf("the VM %s is already %s", id, from).WithRemedy("smolvm inspect %s", id)
	case to == api.StatePaused && !from.Live():
		return e.WithRemedy("smolvm start %s", id)
	default:
		return e.WithRemedy("smolvm inspect %s", id)
	}
}
