// A reverse proxy as a Go programmer would write it: httputil.ReverseProxy over two backends in turn, kept connections,
// recycled buffers, and an access log on standard output if asked for.
//
//	reverse_proxy LISTEN LOG BACKEND...
package main

import (
	"bufio"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

type buffers struct{ sync.Pool }

func (b *buffers) Get() []byte  { return b.Pool.Get().([]byte) }
func (b *buffers) Put(x []byte) { b.Pool.Put(x) }

type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (r *recorder) WriteHeader(status int) { r.status = status; r.ResponseWriter.WriteHeader(status) }
func (r *recorder) Write(b []byte) (int, error) {
	r.bytes += len(b)
	return r.ResponseWriter.Write(b)
}

func main() {
	listen, logged, backends := os.Args[1], os.Args[2] == "on", os.Args[3:]
	var turn uint64
	proxy := &httputil.ReverseProxy{
		Director: func(r *http.Request) {
			r.URL.Scheme = "http"
			r.URL.Host = backends[atomic.AddUint64(&turn, 1)%uint64(len(backends))]
		},
		Transport: &http.Transport{
			MaxIdleConns:        8192,
			MaxIdleConnsPerHost: 4096,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 32*1024) }}},
		ErrorLog:   log.New(os.Stderr, "", 0),
	}
	var handler http.Handler = proxy
	if logged {
		var lock sync.Mutex
		out := bufio.NewWriterSize(os.Stdout, 64*1024)
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began := time.Now()
			rec := &recorder{ResponseWriter: w, status: 200}
			proxy.ServeHTTP(rec, r)
			lock.Lock()
			fmt.Fprintf(out, "%s %s \"%s %s\" %d %d %s\n", began.Format(time.RFC3339Nano), r.RemoteAddr, r.Method,
				r.RequestURI, rec.status, rec.bytes, time.Since(began))
			lock.Unlock()
		})
	}
	log.Fatal(http.ListenAndServe(listen, handler))
}
