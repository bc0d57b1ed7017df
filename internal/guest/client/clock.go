package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// SetClock sets the guest's wall clock.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	body, err := c.request(ctx, http.MethodPut, "/v1/clock", url.Values{"ns": {strconv.FormatInt(now.UnixNano(), 10)}}, nil)
	if err != nil {
		return err
	}
	return body.Close()
}
