// OpenFGA's own server over HTTP with its store in memory, without the databases of its command: a third of the time to
// build. It takes those flags of the command that the tests use.
package main

import (
	"context"
	"crypto/subtle"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	openfgav1 "github.com/openfga/api/proto/openfga/v1"
	"github.com/openfga/openfga/pkg/server"
	"github.com/openfga/openfga/pkg/storage/memory"
)

func main() {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	address := flags.String("http-addr", "127.0.0.1:8080", "where to listen")
	key := flags.String("authn-preshared-keys", "", "the bearer token to ask for")
	_ = flags.String("authn-method", "preshared", "the only way there is here")
	_ = flags.Parse(os.Args[2:])

	openfga := server.MustNewServerWithOpts(server.WithDatastore(memory.New()))
	defer openfga.Close()
	api := runtime.NewServeMux()
	if err := openfgav1.RegisterOpenFGAServiceHandlerServer(context.Background(), api, openfga); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	handler := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/healthz" {
			return
		}
		given := []byte(request.Header.Get("Authorization"))
		if subtle.ConstantTimeCompare(given, []byte("Bearer "+*key)) != 1 {
			answer.WriteHeader(http.StatusUnauthorized)
			return
		}
		api.ServeHTTP(answer, request)
	})
	listener := &http.Server{Addr: *address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintln(os.Stderr, listener.ListenAndServe())
}
