/* The JDK's own HTTP clients, over JSSE. KIND: http1, http2, urlconnection. */

import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;

public final class JdkClient {
    public static void main(String[] args) throws Exception {
        Requests.make(args, (kind, trust, to) -> open(kind, Requests.context(trust)));
    }

    private static Requests.Asker open(String kind, SSLContext trust) {
        // One factory: connections are kept alive by who made them.
        SSLSocketFactory factory = trust.getSocketFactory();
        if (kind.equals("urlconnection")) return (method, url, headers, body) -> {
            HttpsURLConnection connection = (HttpsURLConnection) URI.create(url).toURL().openConnection();
            connection.setSSLSocketFactory(factory);
            connection.setRequestMethod(method);
            headers.forEach(connection::setRequestProperty);
            if (body != null) {
                connection.setDoOutput(true);
                connection.setFixedLengthStreamingMode(body.length);
                try (OutputStream out = connection.getOutputStream()) {
                    out.write(body);
                }
            }
            int status = connection.getResponseCode();
            if (status == HttpURLConnection.HTTP_OK) connection.getInputStream().readAllBytes();
            return status;
        };
        HttpClient client = HttpClient.newBuilder()
                .sslContext(trust)
                .version(kind.equals("http2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1)
                .build();
        return (method, url, headers, body) -> {
            HttpRequest.BodyPublisher publisher =
                    body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofByteArray(body);
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).method(method, publisher);
            headers.forEach(request::header);
            return client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray()).statusCode();
        };
    }
}
