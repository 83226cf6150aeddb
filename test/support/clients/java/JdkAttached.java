/*
 * Into which the agent is loaded while it runs. CA URL: a request, then `ready`; when a line has been read, one more on the
 * same connection and one on a new one. The key is in $SECRET.
 */

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import javax.net.ssl.SSLContext;

public final class JdkAttached {
    public static void main(String[] args) throws Exception {
        SSLContext trust = Requests.context(Requests.trust(args[0]));
        HttpClient first = client(trust);
        ask(first, args[1] + "/before");
        System.out.println("ready");
        System.in.read();
        ask(first, args[1] + "/same");
        ask(client(trust), args[1] + "/new");
    }

    private static HttpClient client(SSLContext trust) {
        return HttpClient.newBuilder().sslContext(trust).version(HttpClient.Version.HTTP_1_1).build();
    }

    private static void ask(HttpClient client, String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url))
                .header("Authorization", "Bearer " + System.getenv("SECRET"))
                .build();
        int status = client.send(request, HttpResponse.BodyHandlers.ofByteArray()).statusCode();
        if (status != 200) throw new IllegalStateException("status " + status);
    }
}
