/*
 * Many threads, each with a connection of its own. CA THREADS REQUESTS URL: so many in all; the key is in $SECRET.
 */

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.SSLContext;

public final class JdkLoad {
    public static void main(String[] args) throws Exception {
        SSLContext trust = Requests.context(Requests.trust(args[0]));
        int threads = Integer.parseInt(args[1]);
        AtomicInteger left = new AtomicInteger(Integer.parseInt(args[2]));
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        List<Future<?>> results = new ArrayList<>();
        for (int i = 0; i < threads; i++) results.add(pool.submit(() -> {
            HttpClient client = HttpClient.newBuilder().sslContext(trust).version(HttpClient.Version.HTTP_1_1).build();
            for (int number = left.getAndDecrement(); number > 0; number = left.getAndDecrement()) {
                HttpRequest request = HttpRequest.newBuilder(URI.create(args[3] + "/" + number))
                        .header("Authorization", "Bearer " + System.getenv("SECRET"))
                        .build();
                int status = client.send(request, HttpResponse.BodyHandlers.ofByteArray()).statusCode();
                if (status != 200) throw new IllegalStateException("status " + status);
            }
            return null;
        }));
        for (Future<?> result : results) result.get();
        pool.shutdown();
    }
}
