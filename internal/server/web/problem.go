package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/errdefs"
)

const problemType = "application/problem+json"

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

// Answer answers a request with it.
func (p *Problem) Answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that has gone needs no answer
}

// ProblemOf is err for a client.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	p := NewProblem(errdefs.ClassOf(err), err.Error())
	p.Remedy = errdefs.RemedyOf(err)
	if cause := innermost(err); cause != p.Detail {
		p.Cause = cause
	}
	return p
}

// NewProblem is a failure of a class.
func NewProblem(class errdefs.Class, detail string) *Problem {
	status := class.HTTPStatus()
	return &Problem{Type: "urn:smolvm:error:" + string(class), Title: http.StatusText(status), Status: status, Detail: detail, Code: class}
}

func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// Malformed is what huma finds wrong with a request before any of our code has seen it.
func Malformed(status int, message string, errs ...error) huma.StatusError {
	class, kept := classOf(status)
	p := NewProblem(class, message)
	if kept {
		p.Status, p.Title = status, http.StatusText(status)
	}
	for _, err := range errs {
		if err == nil {
			continue
		}
		if d, ok := err.(huma.ErrorDetailer); ok {
			p.Errors = append(p.Errors, d.ErrorDetail())
		} else {
			p.Errors = append(p.Errors, &huma.ErrorDetail{Message: err.Error()})
		}
	}
	if len(p.Errors) > 0 {
		first := p.Errors[0]
		p.Detail = message + ": " + cmp.Or(first.Location, "request") + ": " + first.Message
	}
	return p
}

// classOf tells the class of a status of huma's own, and whether the status stays: 422 is 400 with us, as what we validate
// ourselves.
func classOf(status int) (errdefs.Class, bool) {
	switch status {
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		return errdefs.Invalid, false
	case http.StatusNotFound:
		return errdefs.NotFound, true
	case http.StatusUnauthorized, http.StatusForbidden:
		return errdefs.Denied, true
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return errdefs.Exhausted, true
	case http.StatusRequestTimeout:
		return errdefs.Timeout, true
	}
	if status >= http.StatusInternalServerError {
		return errdefs.Internal, true
	}
	return errdefs.Invalid, true
}

func code(status int) string { return strconv.Itoa(status) }
