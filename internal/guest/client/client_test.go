package client

import (
	"net/http"
	"testing"
)

// TestClose: the end is no failure, the second one neither, though the transport closes the connection before we do.
func TestClose(t *testing.T) {
	c := guest(t, func(http.ResponseWriter, *http.Request) {})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	<-c.Gone()
}
