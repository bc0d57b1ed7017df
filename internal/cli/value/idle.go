package value

import (
	"fmt"
	"strings"

	"github.com/smolvm/smolvm/api"
)

// Idle is a flag's value: a duration, and after "=" what is done then.
type Idle struct {
	Duration
	Action api.IdleAction
}

// String implements pflag.Value.
func (i *Idle) String() string {
	if i.Duration == 0 {
		return ""
	}
	return i.Duration.String() + "=" + string(i.Action)
}

// Type implements pflag.Value.
func (*Idle) Type() string { return "duration[=action]" }

// Set implements pflag.Value.
func (i *Idle) Set(s string) error {
	d, action, given := strings.Cut(s, "=")
	i.Action = api.IdleStop
	if given {
		i.Action = api.IdleAction(action)
	}
	switch i.Action {
	case api.IdleStop, api.IdlePause, api.IdleRemove:
		return i.Duration.Set(d)
	}
	return fmt.Errorf("%q is none of stop, pause and rm", action)
}
